"""What a request would cost, said by the code that admits it."""

import uuid
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from billing.ledger.accounts import balances_by_kind
from billing.models import Transaction, UsageRecord
from billing.pricing.contracts import contract_make
from easel.jobs.models import Job
from tenants.models import MonthlyUse
from tenants.quotas import quota_set
from tests.conftest import NOW
from tests.easel.api.conftest import call

MAX_MICROS = 1800  # 0.25 units x 8 steps x 4 s at 0.0001, 0.25 units at 0.002, a request at 0.0005


@pytest.fixture
def quote(body):
    def ask(customer, **fields):
        answer = call("POST", "/v1/images/quotes", customer, json=body(**fields))
        assert answer.status_code == 200, answer.text
        return answer.json()

    return ask


def test_a_quote_is_what_admission_holds_and_writes_nothing(alice, quote, create):
    said = quote(alice)
    assert said["most"]["amount_micros"] == MAX_MICROS
    assert {line["meter"]: line["most"]["amount_micros"] for line in said["lines"]} == {
        "gpu_second": 800,
        "image_unit": 500,
        "request": 500,
    }
    assert (said["admitted"], said["available"]["amount"]) == (True, "10.000000")
    for table in (Job, MonthlyUse, UsageRecord):
        assert not table.objects.filter(tenant=alice.tenant).exists()
    assert not Transaction.objects.filter(tenant=alice.tenant, kind="hold").exists()
    create(alice)
    assert balances_by_kind(alice.tenant)["held"] == MAX_MICROS


def test_what_is_expected_is_what_the_pools_work_took_lately(alice, quote, submit, end):
    before = quote(alice)
    assert before["expected"] == before["most"]
    end(submit(alice), gpu_seconds=2.0)
    gpu_line = quote(alice, n=2)["lines"][0]
    assert (gpu_line["quantity"], gpu_line["quantity_most"]) == ("4", "16")
    assert (gpu_line["amount"]["amount_micros"], gpu_line["most"]["amount_micros"]) == (400, 1600)


def test_a_quote_says_what_it_follows_from(alice, quote):
    now = datetime.now(UTC)
    contract = contract_make(tenant=alice.tenant, discount=Decimal("0.1"), starts_at=now, now=now)
    units = next(line for line in quote(alice)["lines"] if line["meter"] == "image_unit")
    assert units["parts"] == [{"quantity": "0.25", "unit_price": "0.002"}]
    assert (units["contract"], units["discount"], units["price_book"]) == (str(contract.pk), "0.1", "USD version 1")
    assert (units["amount"]["amount_micros"], units["list_amount"]["amount_micros"]) == (450, 500)


def test_what_would_keep_it_from_being_admitted_is_said_with_the_price(customer, quote):
    poor = customer(credit="0.001")
    said = quote(poor)
    assert (said["admitted"], said["refusal"]["code"], said["most"]["amount_micros"]) == (
        False,
        "insufficient_quota",
        MAX_MICROS,
    )
    limited = customer()
    quota_set(tenant=limited.tenant, api_key=None, limits={"image_units_per_month": Decimal("0.1")}, now=NOW)
    assert quote(limited)["refusal"]["code"] == "image_quota_exceeded"


def test_a_queue_as_full_as_the_platform_lets_it_be_is_said_with_the_price(alice, quote, submit, settings_of):
    settings_of(queued_jobs_max=1)
    submit(alice)
    said = quote(alice)
    assert (said["admitted"], said["refusal"]["code"], said["most"]["amount_micros"]) == (
        False,
        "queue_full",
        MAX_MICROS,
    )


def test_a_request_that_the_cache_could_answer_is_quoted_as_cached(alice, quote, submit, end):
    end(submit(alice, seed=7))
    said = quote(alice, seed=7)
    assert (said["cached"], said["most"]["amount_micros"]) == (True, 500)
    assert quote(alice, seed=7, cache=False)["most"]["amount_micros"] == MAX_MICROS


@pytest.mark.parametrize("wrong", [{"size": "100x100"}, {"n": 0}, {"prompt": ""}, {"model": f"no-{uuid.uuid4().hex}"}])
def test_what_is_refused_as_a_generation_is_refused_as_a_quote(alice, body, wrong):
    refusals = [
        call("POST", path, alice, json=body(**wrong)) for path in ("/v1/images/quotes", "/v1/images/generations")
    ]
    assert refusals[0].status_code in (400, 404)
    assert refusals[0].json() == refusals[1].json()
