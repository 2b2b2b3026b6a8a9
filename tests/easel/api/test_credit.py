"""The balance, and the budgets that tenants set themselves."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from billing.ledger.accounts import credit_limit_set
from billing.ledger.postings import credit_grant
from billing.models import Budget
from core.models import AuditEvent
from easel.jobs.models import Job
from tests.conftest import take_hold
from tests.easel.api.conftest import call

DOLLAR = 1_000_000


def put(customer, **fields):
    return call("PUT", "/v1/budgets", customer, json=fields)


def listed(customer):
    return call("GET", "/v1/budgets", customer).json()["data"]


def error_of(answer):
    return answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["param"]


def test_the_balance_says_what_can_be_spent_and_what_makes_it_up(alice):
    ends = datetime.now(UTC) + timedelta(days=30)
    reference = uuid.uuid4()
    credit_grant(
        tenant=alice.tenant,
        amount_micros=DOLLAR,
        reference=reference,
        now=ends,
        priority=1,
        expires_at=ends + timedelta(1),
    )
    credit_limit_set(tenant=alice.tenant, limit_micros=5 * DOLLAR)
    take_hold(tenant=alice.tenant, amount_micros=4 * DOLLAR, reference=uuid.uuid4(), now=ends)
    found = call("GET", "/v1/balance", alice).json()
    amounts = {name: found[name]["amount"] for name in ("available", "credit", "held", "owed", "credit_limit")}
    assert amounts == {
        "available": "12.000000",
        "credit": "7.000000",
        "held": "4.000000",
        "owed": "0.000000",
        "credit_limit": "5.000000",
    }
    assert [(grant["priority"], grant["remaining"]["amount_micros"]) for grant in found["grants"]] == [
        (1, DOLLAR),
        (50, 10 * DOLLAR),
    ]


def test_a_tenant_sets_changes_and_removes_its_budgets_on_record(alice):
    whole = put(alice, amount_micros=5 * DOLLAR, hard_stop=True).json()
    assert (whole["project"], whole["api_key"], whole["remaining"]["amount"]) == (None, None, "5.000000")
    of_key = put(alice, amount_micros=2 * DOLLAR, api_key=alice.key.key_id, currency="USD").json()
    assert put(alice, amount_micros=DOLLAR, api_key=alice.key.key_id).json()["id"] == of_key["id"]
    assert [budget["id"] for budget in listed(alice)] == [whole["id"], of_key["id"]]
    assert call("DELETE", f"/v1/budgets/{whole['id']}", alice).json()["id"] == whole["id"]
    assert [budget["amount"]["amount_micros"] for budget in listed(alice)] == [DOLLAR]
    events = AuditEvent.objects.filter(tenant=alice.tenant).order_by("recorded_at")
    assert [event.action for event in events] == ["budget.set"] * 3 + ["budget.remove"]
    assert {event.actor for event in events} == {f"key:{alice.key.key_id}"}


@pytest.mark.usefixtures("one_day")
def test_a_job_over_a_hard_stop_is_refused_by_a_code_that_no_client_retries(alice, body):
    put(alice, amount_micros=1, hard_stop=True, project="default")
    answer = call("POST", "/v1/jobs", alice, json=body())
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (429, "budget_exceeded", "insufficient_quota")
    assert answer.headers["x-should-retry"] == "false"
    assert "0.000001 USD is left of the budget of the project 'default'" in error["message"]
    assert not Job.objects.filter(tenant=alice.tenant).exists()
    put(alice, amount_micros=DOLLAR, hard_stop=True, project="default")
    assert call("POST", "/v1/jobs", alice, json=body()).status_code == 202
    assert listed(alice)[0]["held"]["amount_micros"] > 0


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({}, (400, "missing_required_parameter", "amount_micros")),
        ({"amount_micros": -1}, (400, "invalid_value", "amount_micros")),
        ({"amount_micros": 1.5}, (400, "invalid_value", "amount_micros")),
        ({"amount_micros": "5"}, (400, "invalid_value", "amount_micros")),
        ({"amount_micros": True}, (400, "invalid_value", "amount_micros")),
        ({"amount_micros": None}, (400, "missing_required_parameter", "amount_micros")),
        ({"amount_micros": 10**15 + 1}, (400, "invalid_value", "amount_micros")),
        ({"amount_micros": 1234567890123456789}, (400, "invalid_value", "amount_micros")),
        ({"amount_micros": 1, "currency": "EUR"}, (400, "budget_invalid", "currency")),
        ({"amount_micros": 1, "project": "nope"}, (404, "project_not_found", "project")),
        ({"amount_micros": 1, "api_key": "nope"}, (404, "not_found", "api_key")),
        ({"amount_micros": 1, "tenant": "x"}, (400, "unknown_field", "tenant")),
    ],
)
def test_an_odd_budget_is_refused_at_its_field(alice, fields, refusal):
    assert error_of(put(alice, **fields)) == refusal
    assert not Budget.objects.filter(tenant=alice.tenant).exists()


def test_what_is_no_number_at_all_is_refused(alice):
    headers = {"Content-Type": "application/json"}
    answer = call("PUT", "/v1/budgets", alice, content=b'{"amount_micros": NaN}', headers=headers)
    assert answer.status_code == 400


def test_a_budget_of_both_a_project_and_a_key_is_refused(alice):
    answer = put(alice, amount_micros=1, project="default", api_key=alice.key.key_id)
    assert error_of(answer) == (400, "budget_invalid", "api_key")


def test_another_tenants_budgets_keys_and_projects_are_not_there(alice, bob):
    theirs = put(bob, amount_micros=1).json()["id"]
    assert error_of(call("DELETE", f"/v1/budgets/{theirs}", alice))[:2] == (404, "budget_not_found")
    assert put(alice, amount_micros=1, api_key=bob.key.key_id).status_code == 404
    assert (len(listed(bob)), listed(alice)) == (1, [])


def test_a_key_for_usage_reads_budgets_and_sets_none(customer):
    carol = customer(scopes=("usage",))
    assert call("GET", "/v1/budgets", carol).status_code == 200
    assert put(carol, amount_micros=1).status_code == 403
    assert call("DELETE", f"/v1/budgets/{uuid.uuid4()}", carol).status_code == 403


def test_real_balances_and_budgets_are_as_described(alice):
    assert put(alice, amount_micros=DOLLAR).status_code == 200  # `call` compares answers with the OpenAPI document
    for path in ("/v1/balance", "/v1/budgets"):
        assert call("GET", path, alice).status_code == 200
