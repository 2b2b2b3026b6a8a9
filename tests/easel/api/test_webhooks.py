import pytest

from easel.webhooks.endpoints import ENDPOINTS_MAX
from easel.webhooks.models import Event, WebhookDelivery, WebhookEndpoint
from easel.webhooks.outbox import webhook_emit
from tests.conftest import NOW
from tests.easel.api.conftest import call

URL = "https://hooks.example/easel"


def make(customer, **fields):
    return call("POST", "/v1/webhooks", customer, json={"url": URL, **fields})


@pytest.fixture
def hook(alice):
    return make(alice).json()


def test_a_webhook_is_made_with_a_secret_that_is_shown_once(alice):
    made = make(alice, events=["job.failed"])
    assert (made.status_code, made.json()["events"]) == (201, ["job.failed"])
    assert made.json()["secret"].startswith("whsec_")
    assert "secret" not in call("GET", f"/v1/webhooks/{made.json()['id']}", alice).json()


def test_the_secret_is_not_in_the_database(alice, hook):
    row = WebhookEndpoint.objects.filter(id=hook["id"]).values().get()
    assert hook["secret"].removeprefix("whsec_").encode() not in bytes(row["secret"])


def test_a_request_that_is_repeated_makes_one(alice):
    headers = {"Idempotency-Key": "once"}
    first, again = (call("POST", "/v1/webhooks", alice, json={"url": URL}, headers=headers) for _ in range(2))
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "secret" not in again.json()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"url": "http://hooks.example/"}, "webhook_url_invalid"),
        ({"url": "https://127.0.0.1/"}, "webhook_url_invalid"),
        ({"events": ["job.done"]}, "webhook_event_unknown"),
        ({"secret": "mine"}, "unknown_field"),
    ],
)
def test_an_endpoint_that_is_not_valid_is_refused(alice, fields, code):
    answer = make(alice, **fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert not WebhookEndpoint.objects.filter(tenant=alice.tenant).exists()


def test_an_account_has_so_many(alice):
    for _ in range(ENDPOINTS_MAX):
        assert make(alice).status_code == 201
    assert make(alice).json()["error"]["code"] == "webhook_limit_reached"


def test_it_can_be_changed_switched_off_and_deleted(alice, hook):
    path = f"/v1/webhooks/{hook['id']}"
    changed = call("PATCH", path, alice, json={"events": ["job.failed"], "enabled": False}).json()
    assert (changed["events"], changed["enabled"], changed["disabled_reason"]) == (
        ["job.failed"],
        False,
        "switched off",
    )
    assert call("POST", f"{path}/test", alice).json()["error"]["code"] == "webhook_disabled"
    assert call("PATCH", path, alice, json={"enabled": True}).json()["enabled"] is True
    assert call("DELETE", path, alice).status_code == 204
    assert call("GET", path, alice).status_code == 404


def test_rotating_gives_another_secret(alice, hook):
    rotated = call("POST", f"/v1/webhooks/{hook['id']}/rotate", alice).json()
    assert rotated["secret"] not in ("", hook["secret"])


def test_deliveries_are_listed_with_what_they_said_and_sent_again(alice, hook):
    tested = call("POST", f"/v1/webhooks/{hook['id']}/test", alice)
    assert (tested.status_code, tested.json()["status"]) == (202, "pending")
    webhook_emit(tenant=alice.tenant, event=Event.JOB_FAILED, data=lambda: {"id": "1"}, now=NOW)
    path = f"/v1/webhooks/{hook['id']}/deliveries"
    page = call("GET", f"{path}?limit=1", alice).json()
    assert (page["data"][0]["event"], page["has_more"]) == ("webhook.test", True)
    rest = call("GET", f"{path}?after={page['data'][0]['id']}", alice).json()
    assert [one["data"] for one in rest["data"]] == [{"id": "1"}]
    WebhookDelivery.objects.filter(endpoint=hook["id"]).update(state="failed")
    assert call("GET", f"{path}?status=delivered", alice).json()["data"] == []
    again = call("POST", f"{path}/{rest['data'][0]['id']}/replay", alice)
    assert (again.status_code, again.json()["status"]) == (202, "pending")


@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/rotate"),
        ("POST", "/test"),
        ("GET", "/deliveries"),
        ("POST", "/deliveries/0b8d8b3e-5d2f-4c52-8a3c-6f3f0d6d9a11/replay"),
    ],
)
def test_another_tenants_webhook_is_not_found(bob, hook, method, rest):
    options = {"json": {}} if method == "PATCH" else {}
    answer = call(method, f"/v1/webhooks/{hook['id']}{rest}", bob, **options)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "webhook_not_found")


def test_it_takes_a_scope_of_its_own(customer):
    carol = customer(scopes=("generate", "usage"))
    assert make(carol).json()["error"]["code"] == "insufficient_scope"


def test_real_answers_are_as_described(alice, hook):
    # `call` compares answers with the OpenAPI document.
    assert call("POST", f"/v1/webhooks/{hook['id']}/test", alice).status_code == 202
    for path in ("/v1/webhooks", "/v1/webhooks/{webhook_id}", "/v1/webhooks/{webhook_id}/deliveries"):
        assert call("GET", path.format(webhook_id=hook["id"]), alice).status_code == 200
