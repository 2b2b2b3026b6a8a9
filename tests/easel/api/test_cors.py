"""Pages of other origins: what a browser asks before a request, and what it lets them read of the answer."""

import io
import uuid

import pytest

from easel.api import cors
from easel.storage import store
from tenants.accounts import tenant_resume, tenant_suspend
from tenants.origins import origins_set
from tests.conftest import NOW
from tests.easel.api.conftest import call

FOREIGN = "https://foreign.example"
ALLOW_ORIGIN = "Access-Control-Allow-Origin"


@pytest.fixture
def app(alice):
    """An origin that Alice's tenant alone allows."""
    origin = f"https://{uuid.uuid4().hex}.example"
    origins_set(tenant=alice.tenant, origins=["http://localhost:5173", origin])
    return origin


def preflight(path, origin, method="POST", headers="authorization,content-type"):
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return call("OPTIONS", path, headers=asked)


def listed(answer, header):
    return {part.strip().lower() for part in answer.headers[header].split(",")}


def test_a_preflight_is_answered_without_a_key(app):
    answer = preflight("/v1/images/generations", app)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers[ALLOW_ORIGIN] == app
    assert listed(answer, "Access-Control-Allow-Methods") == {"post", "options"}
    assert int(answer.headers["Access-Control-Max-Age"]) > 0
    assert "origin" in listed(answer, "Vary")


@pytest.mark.parametrize("path", ["/v1", "/v1/models"])
def test_the_index_is_readable_as_what_is_under_it(path, alice, app):
    assert call("GET", path, alice, headers={"Origin": app}).headers[ALLOW_ORIGIN] == app


def test_a_preflight_names_the_methods_of_its_path(app):
    answer = preflight(f"/v1/jobs/{uuid.uuid4()}", app, method="DELETE")
    assert listed(answer, "Access-Control-Allow-Methods") == {"get", "delete", "head", "options"}


def test_a_preflight_lets_every_header_of_a_client_through(app):
    asked = "x-stainless-retry-count, x-stainless-os, openai-organization, http-referer"
    allowed = listed(preflight("/v1/jobs", app, headers=asked), "Access-Control-Allow-Headers")
    usual = {"authorization", "content-type", "idempotency-key", "api-key", "x-request-id", "last-event-id"}
    assert allowed >= usual | {name.strip() for name in asked.split(",")}


def test_a_preflight_of_a_foreign_origin_lets_nothing_through(app):
    answer = preflight("/v1/jobs", FOREIGN)
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert "origin" in listed(answer, "Vary")


def test_a_page_may_read_that_a_path_is_not_there(alice, app):
    assert preflight("/v1/images/nothing", app).status_code == 204
    answer = call("POST", "/v1/images/nothing", alice, headers={"Origin": app})
    assert (answer.status_code, answer.headers[ALLOW_ORIGIN]) == (404, app)


def test_an_answer_is_readable_by_an_origin_of_its_tenant(alice, app):
    answer = call("GET", "/v1/models", alice, headers={"Origin": app})
    assert (answer.status_code, answer.headers[ALLOW_ORIGIN]) == (200, app)
    assert "origin" in listed(answer, "Vary")


def test_an_answer_is_not_readable_by_an_origin_of_another_tenant(bob, app):
    answer = call("GET", "/v1/models", bob, headers={"Origin": app})
    assert answer.status_code == 200
    assert ALLOW_ORIGIN not in answer.headers
    assert "origin" in listed(answer, "Vary")


def test_an_origin_that_is_taken_away_reads_no_more(alice, app):
    origins_set(tenant=alice.tenant, origins=[])
    assert ALLOW_ORIGIN not in call("GET", "/v1/models", alice, headers={"Origin": app}).headers
    assert ALLOW_ORIGIN not in preflight("/v1/models", app).headers


@pytest.mark.parametrize("origin", ["", "null", "https://app.example.evil.example", "HTTPS://FOREIGN.EXAMPLE", "é"])
def test_what_is_like_an_allowed_origin_is_not_it(alice, origin):
    origins_set(tenant=alice.tenant, origins=["https://app.example"])
    answer = call("GET", "/v1/models", alice, headers={"Origin": origin.encode()})
    assert (answer.status_code, ALLOW_ORIGIN in answer.headers) == (200, False)


def test_the_platforms_origins_are_allowed_to_every_tenant(alice, bob, settings_of):
    settings_of(cors_origins=frozenset({"https://console.example"}))
    for customer in (alice, bob):
        answer = call("GET", "/v1/models", customer, headers={"Origin": "https://console.example"})
        assert answer.headers[ALLOW_ORIGIN] == "https://console.example"
    assert preflight("/v1/models", "https://console.example", method="GET").headers[ALLOW_ORIGIN]
    assert ALLOW_ORIGIN not in call("GET", "/v1/models", alice, headers={"Origin": FOREIGN}).headers


def test_a_platform_can_allow_every_origin(alice, settings_of):
    settings_of(cors_origins=frozenset({"*"}))
    assert call("GET", "/v1/models", alice, headers={"Origin": FOREIGN}).headers[ALLOW_ORIGIN] == "*"
    assert preflight("/v1/models", "null").headers[ALLOW_ORIGIN] == "*"


def test_cookies_are_never_allowed(alice, app, settings_of):
    for origins in (frozenset(), frozenset({"*"}), frozenset({app})):
        settings_of(cors_origins=origins)
        for answer in (preflight("/v1/models", app), call("GET", "/v1/models", alice, headers={"Origin": app})):
            assert ALLOW_ORIGIN in answer.headers
            assert "Access-Control-Allow-Credentials" not in answer.headers


def test_a_page_may_read_every_header_of_an_answer(alice, app, body):
    answer = call("POST", "/v1/jobs", alice, json=body(), headers={"Origin": app, "Idempotency-Key": "a"})
    again = call("POST", "/v1/jobs", alice, json=body(), headers={"Origin": app, "Idempotency-Key": "a"})
    assert listed(answer, "Access-Control-Expose-Headers") >= {"x-request-id", "allow"}
    assert "idempotent-replayed" in listed(again, "Access-Control-Expose-Headers")


def refusals(alice, app):
    """By their status: refusals of callers that are known, that are not, and of what Django never sees."""
    origin = {"Origin": app}
    yield 401, call("GET", "/v1/models", headers=origin)
    yield 401, call("POST", "/v1/jobs", headers=origin | {"Authorization": "Bearer wrong"}, json={})
    yield 400, call("POST", "/v1/jobs", alice, headers=origin, json={"prompt": 5})
    tenant_suspend(tenant=alice.tenant, now=NOW)
    yield 403, call("GET", "/v1/models", alice, headers=origin)
    tenant_resume(tenant=alice.tenant)
    yield 404, call("GET", f"/v1/jobs/{uuid.uuid4()}", alice, headers=origin)
    yield 405, call("DELETE", "/v1/models", alice, headers=origin)
    yield 413, call("POST", "/v1/jobs", alice, headers=origin, content=b" " * 1_000_001)
    yield 400, call("GET", f"/v1/jobs?{'a=1&' * 1001}", alice, headers=origin)


def test_refusals_are_readable_too(alice, app):
    for status, answer in refusals(alice, app):
        assert (answer.status_code, answer.headers.get(ALLOW_ORIGIN)) == (status, app), answer.request.url
        assert "x-request-id" in listed(answer, "Access-Control-Expose-Headers")


def test_refusals_are_not_readable_by_a_foreign_origin(alice, app):
    for status, answer in refusals(alice, FOREIGN):
        assert (answer.status_code, answer.headers.get(ALLOW_ORIGIN)) == (status, None), answer.request.url


def test_a_limit_of_requests_is_readable_with_its_headers(alice, app, body):
    alice.tenant.quotas.update(requests_per_minute=0)
    answer = call("POST", "/v1/jobs", alice, json=body(), headers={"Origin": app})
    assert (answer.status_code, answer.headers[ALLOW_ORIGIN]) == (429, app)
    assert listed(answer, "Access-Control-Expose-Headers") >= {"ratelimit", "ratelimit-policy", "x-should-retry"}


def test_a_failure_is_readable_while_the_database_is_unavailable(alice, app, database_unavailable, monkeypatch):
    monkeypatch.setattr(cors, "_last_known", {alice.tenant.slug: frozenset({app})})
    answer = call("GET", "/v1/models", alice, headers={"Origin": app})
    assert (answer.status_code, answer.headers[ALLOW_ORIGIN]) == (503, app)
    assert preflight("/v1/models", app).headers[ALLOW_ORIGIN] == app


def test_a_stream_is_readable_from_its_first_byte(alice, app, create):
    job = create(alice)
    call("POST", f"/v1/jobs/{job['id']}/cancel", alice)
    answer = call("GET", f"/v1/jobs/{job['id']}/events", alice, headers={"Origin": app})
    assert (answer.headers["Content-Type"], answer.headers[ALLOW_ORIGIN]) == ("text/event-stream", app)
    assert "job.canceled" in answer.text


def test_an_image_is_readable_by_the_origins_of_the_tenant_that_has_it(alice, bob, app):
    for customer, allowed in ((alice, app), (bob, None)):
        key = f"{customer.tenant.slug}/outputs/{uuid.uuid4()}/0.png"
        store().put(key, io.BytesIO(b"picture"), "image/png")
        answer = call("GET", store().signed_url("GET", key, seconds=60, base=""), headers={"Origin": app})
        assert (answer.status_code, answer.headers.get(ALLOW_ORIGIN)) == (200, allowed)
        assert "origin" in listed(answer, "Vary")


def test_a_browser_that_cached_an_image_of_no_origin_asks_again_for_a_page(alice):
    key = f"{alice.tenant.slug}/outputs/{uuid.uuid4()}/0.png"
    store().put(key, io.BytesIO(b"picture"), "image/png")
    assert "origin" in listed(call("GET", store().signed_url("GET", key, seconds=60, base="")), "Vary")


@pytest.mark.parametrize("path", ["/admin/", "/healthz/live", "/metrics"])
def test_nothing_else_is_readable(path, settings_of):
    settings_of(cors_origins=frozenset({"*"}))
    assert ALLOW_ORIGIN not in call("GET", path, headers={"Origin": FOREIGN}).headers
    assert ALLOW_ORIGIN not in preflight(path, FOREIGN).headers


def test_neither_other_programs_nor_known_callers_cost_a_look_at_the_origins(alice, app, monkeypatch):
    def looked():
        raise AssertionError("the origins of all tenants were read")

    monkeypatch.setattr(cors, "origins_by_tenant", looked)
    assert call("GET", "/v1/models", alice).status_code == 200
    assert call("GET", "/v1/models").status_code == 401
    assert call("GET", "/v1/models", alice, headers={"Origin": app}).headers[ALLOW_ORIGIN] == app
