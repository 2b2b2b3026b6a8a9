"""Bad input: OpenAI's error body with a stable code, and nothing left behind."""

import json
import uuid

import pytest
from django.db import OperationalError

from billing.ledger.accounts import balances_by_kind
from easel.catalog.models import Adapter
from easel.jobs.models import Job
from tenants.keys import key_revoke
from tenants.models import Quota, Tenant
from tests.conftest import NOW
from tests.easel.api.conftest import call

TEN_USD = 10_000_000


def refused(answer, status, code, param=...):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], bool(error["message"])) == (code, True)
    if param is not ...:
        assert error["param"] == param


def left_nothing(customer):
    assert not Job.objects.filter(tenant=customer.tenant).exists()
    assert not Adapter.objects.filter(tenant=customer.tenant).exists()
    assert balances_by_kind(customer.tenant)["held"] == 0


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"model": "no-such-model"}, "model_not_found", "model"),
        ({"prompt": ...}, "missing_required_parameter", "prompt"),
        ({"prompt": ""}, "prompt_invalid", "prompt"),
        ({"prompt": " \n\t"}, "prompt_invalid", "prompt"),
        ({"prompt": "x" * 4001}, "prompt_invalid", "prompt"),
        ({"prompt": "a\x00b"}, "invalid_value", "prompt"),
        ({"prompt": "a\x1b[31m"}, "prompt_invalid", "prompt"),
        ({"prompt": "a\ud800b"}, "invalid_value", "prompt"),
        ({"prompt": None}, "missing_required_parameter", "prompt"),
        ({"prompt": 5}, "invalid_value", "prompt"),
        ({"prompt": ["a"]}, "invalid_value", "prompt"),
        ({"size": "999"}, "size_invalid", "size"),
        ({"size": "999x256"}, "size_invalid", "size"),
        ({"size": "1x1"}, "size_invalid", "size"),
        ({"size": "auto "}, "size_invalid", "size"),
        ({"size": "256x256\n"}, "size_invalid", "size"),
        ({"size": "250x250"}, "size_invalid", "size"),
        ({"size": "large"}, "size_invalid", "size"),
        ({"size": "0x0"}, "size_invalid", "size"),
        ({"size": "16x16"}, "size_invalid", "size"),
        ({"size": "4096x4096"}, "size_invalid", "size"),
        ({"size": "99999999999x16"}, "size_invalid", "size"),
        ({"size": "２５６x256"}, "size_invalid", "size"),
        ({"size": 256}, "invalid_value", "size"),
        ({"n": 0}, "invalid_value", "n"),
        ({"n": 100}, "invalid_value", "n"),
        ({"n": "2"}, "invalid_value", "n"),
        ({"n": True}, "invalid_value", "n"),
        ({"n": 11}, "invalid_value", "n"),
        ({"n": 1.5}, "invalid_value", "n"),
        ({"n": 10**30}, "invalid_value", "n"),
        ({"steps": 0}, "steps_invalid", "steps"),
        ({"steps": 1000}, "steps_invalid", "steps"),
        ({"seed": -2}, "invalid_value", "seed"),
        ({"seed": 2**64}, "invalid_value", "seed"),
        ({"adapters": "outline"}, "invalid_value", "adapters"),
        ({"adapters": {"name": "outline"}}, "invalid_value", "adapters"),
        ({"adapters": ["outline"]}, "invalid_value", "adapters.0"),
        ({"adapters": [None]}, "invalid_value", "adapters.0"),
        ({"adapters": [{}]}, "missing_required_parameter", "adapters.0.name"),
        ({"adapters": [{"name": 5}]}, "invalid_value", "adapters.0.name"),
        ({"adapters": [{"name": "a\x00"}]}, "invalid_value", "adapters.0.name"),
        ({"adapters": [{"name": "a", "scale": "1"}]}, "invalid_value", "adapters.0.scale"),
        ({"adapters": [{"name": None}]}, "missing_required_parameter", "adapters.0.name"),
        ({"adapters": [{"name": "a", "scale": 10**400}]}, "invalid_value", "adapters.0.scale"),
        ({"adapters": [{"name": "nobody-has-it"}]}, "adapter_not_found", "adapters"),
        ({"adapters": [{"name": "a"}, {"name": "a"}]}, "invalid_value", "adapters"),
        ({"adapters": [{"name": "a", "scale": 1e9}]}, "invalid_value", "adapters.0.scale"),
        ({"adapters": [{"name": "a", "weight": 1}]}, "unknown_field", "adapters.0.weight"),
        ({"adapters": [{"name": f"a{i}"} for i in range(5)]}, "invalid_value", "adapters"),
        ({"project": "no-such-project"}, "project_not_found", "project"),
        ({"project": "\x00"}, "invalid_value", "project"),
        ({"metadata": "a"}, "invalid_value", "metadata"),
        ({"metadata": {"a": 1}}, "invalid_value", "metadata.a"),
        ({"metadata": {"\ud800": 1}}, "invalid_value", "metadata.\\ud800"),
        ({"metadata": {"a\x00": "b"}}, "invalid_value", "metadata"),
        ({"metadata": {"a": "\ud800"}}, "invalid_value", "metadata.a"),
        ({"metadata": {str(i): "" for i in range(17)}}, "invalid_value", "metadata"),
        ({"user": "\x00"}, "invalid_value", "user"),
        ({"user": "\ud800"}, "invalid_value", "user"),
        ({"output_format": "gif"}, "invalid_value", "output_format"),
        ({"output_format": "\ud800"}, "invalid_value", "output_format"),
        ({"promt": "a typo"}, "unknown_field", "promt"),
        ({"\ud800": 1}, "unknown_field", "\\ud800"),
    ],
)
def test_a_bad_field_is_named_and_leaves_nothing(alice, body, fields, code, param):
    status = 404 if code.endswith("_not_found") else 400
    content = json.dumps(body(**fields))  # as ASCII, in which a lone surrogate can be sent
    answer = call("POST", "/v1/jobs", alice, content=content, headers={"Content-Type": "application/json"})
    refused(answer, status, code, param)
    left_nothing(alice)


def test_a_quality_that_openai_does_not_know_is_refused(alice, body):
    refused(call("POST", "/v1/jobs", alice, json=body(quality="ultra")), 400, "invalid_value", "quality")
    left_nothing(alice)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("background", "transparent"),
        ("moderation", "low"),
        ("partial_images", 2),
        ("style", "vivid"),
    ],
)
def test_what_openai_offers_and_we_do_not_is_refused_rather_than_ignored(alice, body, field, value):
    answer = call("POST", "/v1/images/generations", alice, json=body(**{field: value}))
    refused(answer, 400, "unsupported_parameter", field)
    left_nothing(alice)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "missing_required_parameter"),
        (b"{", "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b'{"prompt": NaN}', "invalid_json"),
        (b'{"adapters": [{"name": "a", "scale": -Infinity}]}', "invalid_json"),
        (b'{"n": ' + b"9" * 5000 + b"}", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"a":' * 50_000, "invalid_json"),
        (b"[]", "invalid_value"),
        (b'"x"', "invalid_value"),
        (b"null", "invalid_value"),
        (b"5", "invalid_value"),
    ],
)
def test_what_is_no_json_object_is_refused(alice, content, code):
    answer = call("POST", "/v1/jobs", alice, content=content, headers={"Content-Type": "application/json"})
    refused(answer, 400, code)


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/images/quotes", "/v1/webhooks", "/openai/images/generations"])
def test_json_in_utf_16_is_refused_by_that_name(alice, body, path):
    content = json.dumps(body()).encode("utf-16")
    answer = call("POST", path, alice, content=content, headers={"Content-Type": "application/json"})
    refused(answer, 400, "invalid_json")
    assert answer.json()["error"]["message"] == "the body is not JSON: it seems to be in UTF-16: send it in UTF-8"
    left_nothing(alice)


def test_json_may_begin_with_a_byte_order_mark(alice, body):
    content = b"\xef\xbb\xbf" + json.dumps(body(prompt="红色的圆"), ensure_ascii=False).encode()
    answer = call("POST", "/v1/jobs", alice, content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["prompt"]) == (202, "红色的圆")


@pytest.mark.parametrize("charset", ["utf-16", "idna", "zlib", "nonsense"])
def test_json_is_utf_8_whatever_its_content_type_says(alice, body, charset):
    content = json.dumps(body(prompt="红色的圆"), ensure_ascii=False).encode()
    headers = {"Content-Type": f"application/json; charset={charset}"}
    assert call("POST", "/v1/jobs", alice, content=content, headers=headers).json()["prompt"] == "红色的圆"


def test_another_content_type_is_refused(alice):
    refused(call("POST", "/v1/jobs", alice, content=b"prompt=a", headers={"Content-Type": "text/plain"}), 415,
            "unsupported_media_type")  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/images/generations"])
def test_a_body_over_the_limit_is_refused(alice, path):
    headers = {"Content-Type": "application/json", "X-Request-Id": "order-7-try-1"}
    answer = call("POST", path, alice, content=b" " * 1_000_001, headers=headers)
    refused(answer, 413, "body_too_large")
    assert answer.headers["X-Request-Id"] == "order-7-try-1"


def test_a_body_over_the_limit_is_refused_when_its_length_is_not_given(alice):
    async def chunks():
        for _ in range(20):
            yield b" " * 100_000

    answer = call("POST", "/v1/jobs", alice, content=chunks(), headers={"Content-Type": "application/json"})
    refused(answer, 413, "body_too_large")


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer x", "Bearer easel_sk_000000000000_" + "0" * 38, "Basic YTpi", "Bearer \xe9"]
)
def test_without_a_key_of_ours_nothing_is_served(header):
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    answer = call("GET", "/v1/models", headers=headers)
    refused(answer, 401, "invalid_api_key")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_revoked_key_is_refused(alice):
    key_revoke(key_id=alice.key.key_id, now=NOW)
    refused(call("GET", "/v1/models", alice), 401, "invalid_api_key")


def test_a_key_with_one_character_changed_is_refused(alice):
    alice.secret = alice.secret[:-1] + ("a" if alice.secret[-1] != "a" else "b")
    refused(call("GET", "/v1/models", alice), 401, "invalid_api_key")


def test_a_suspended_tenant_is_refused(alice):
    Tenant.objects.filter(pk=alice.tenant.pk).update(suspended_at=NOW)
    refused(call("GET", "/v1/models", alice), 403, "account_suspended")


@pytest.mark.parametrize(
    ("method", "path", "scope", "needed"),
    [
        ("POST", "/v1/jobs", "usage", "'generate'"),
        ("GET", "/v1/adapters", "generate", "'adapters' or 'read'"),
        ("GET", "/v1/usage", "generate", "'usage' or 'read'"),
    ],
)
def test_a_key_without_the_scope_is_refused_with_its_name(customer, method, path, scope, needed):
    answer = call(method, path, customer(scopes=(scope,)))
    refused(answer, 403, "insufficient_scope")
    assert answer.json()["error"]["message"] == f"this API key lacks the scope {needed}"


def test_a_call_without_v1_is_refused_with_the_address_that_was_probably_meant(alice, body):
    answer = call("POST", "/images/generations", alice, json=body())
    refused(answer, 404, "not_found")
    assert "did you mean /v1/images/generations?" in answer.json()["error"]["message"]
    assert "did you mean" not in call("POST", "/images/paintings", alice).json()["error"]["message"]


def test_a_size_over_the_tenants_maximum_is_refused(alice, body):
    Quota.objects.filter(tenant=alice.tenant).update(pixels_max=256 * 256)
    refused(call("POST", "/v1/jobs", alice, json=body(size="512x512")), 400, "size_invalid", "size")
    left_nothing(alice)


def test_a_request_that_the_balance_does_not_cover_is_refused(customer, body):
    poor = customer(credit="0.0001")
    answer = call("POST", "/v1/jobs", poor, json=body())
    refused(answer, 429, "insufficient_quota")
    assert answer.headers["x-should-retry"] == "false"
    left_nothing(poor)


@pytest.mark.parametrize(
    "path",
    ["/v1/jobs/{id}", "/v1/jobs/not-an-id", "/v1/nothing", "/nothing", "/v1/models/x", "/v1/models/a%00b",
     "/v1/adapters/a%00b", "/v1/%00", "/v1/jobs//"],
)  # fmt: skip
def test_what_is_not_there_is_404_in_the_same_body(alice, path):
    answer = call("GET", path.format(id=uuid.uuid4()), alice)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] in {"not_found", "job_not_found", "model_not_found"}


def test_a_refusal_that_the_database_goes_away_from_is_no_refusal_but_503(alice, create, body, monkeypatch):
    create(alice)

    def away():
        raise OperationalError("terminating connection due to unexpected postmaster exit")

    monkeypatch.setattr("core.revision._read", away)
    answer = call("POST", "/v1/jobs", alice, json=body(width=48))
    refused(answer, 503, "unavailable")
    assert answer.headers["Retry-After"]


def test_another_method_is_405_in_the_same_body(alice):
    refused(call("DELETE", "/v1/jobs", alice), 405, "method_not_allowed")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"), ("limit=x", "limit"), ("limit=101", "limit"), ("after=x", "after"),
        ("status=done", "status"), ("order=asc", "order"), ("status=%00", "status"), ("limit=%F0%9F", "limit"),
        ("format=xml", "format"), ("%00=1", "\x00"), ("limit=" + 5000 * "9", "limit"),
    ],
)  # fmt: skip
def test_a_bad_query_is_named(alice, query, param):
    answer = call("GET", f"/v1/jobs?{query}", alice)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_query_of_a_thousand_fields_is_refused(alice):
    refused(call("GET", "/v1/jobs?" + "limit=1&" * 1200, alice), 400, "invalid_request")
