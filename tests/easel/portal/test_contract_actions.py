"""Contracts and corrections in the portal."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from billing.ledger.accounts import balances_by_kind
from billing.models import PriceBook, UsageRecord
from billing.pricing.contracts import contract_at
from billing.pricing.price_books import RateTerms, rates_of
from tests.easel.portal.conftest import hidden_fields
from tests.easel.portal.test_actions import action, events

OWN = "- {meter: image_unit, mode: graduated, price: 0, tiers: [{above: 10, price: 0.001}]}"


def test_a_contract_is_made_with_prices_of_its_own_and_ended(finance, alice):
    finance.fill_in(action(alice.tenant, "contract.make"), discount="12.5", minimum="100", prices=OWN)
    contract = contract_at(tenant=alice.tenant, now=datetime.now(UTC))
    assert (contract.discount, contract.minimum_micros) == (Decimal("0.125"), 100_000_000)
    [rate] = rates_of(contract.price_book)
    assert RateTerms.of(rate).price_text == "0, above 10: 0.001 (graduated)"
    page = finance.get(f"/admin/tenants/tenant/{alice.tenant.pk}/change/").text
    assert "12.5 %" in page
    assert "above 10: 0.001" in finance.get(f"/admin/billing/pricebook/{contract.price_book.pk}/change/").text
    assert "overlap" not in finance.fill_in(action(alice.tenant, "contract.end")).text
    contract.refresh_from_db()
    assert contract.ends_at is not None
    assert len(events(alice.tenant, "contract.make")) == len(events(alice.tenant, "contract.end")) == 1


def test_terms_that_can_not_be_leave_no_prices_behind(finance, alice):
    past = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%dT%H:%M}"
    answer = finance.fill_in(
        action(alice.tenant, "contract.make"), discount="0", minimum="0", prices=OWN, starts_at=past
    )
    assert "is past" in answer.text
    assert not PriceBook.objects.filter(tenant=alice.tenant).exists()
    answer = finance.fill_in(
        action(alice.tenant, "contract.make"), discount="0", minimum="0", prices="- {meter: smile}"
    )
    assert "rates 1 meter must be one of" in answer.text


def test_a_form_sent_twice_corrects_once(finance, alice, submit, end):
    job = end(submit(alice))
    before = balances_by_kind(alice.tenant)["revenue"]
    record = UsageRecord.objects.get(job_id=job.id, meter="image_unit")
    hidden = hidden_fields(finance.get(action(job, "usage.correct")).text)
    for _ in range(2):
        finance.post(
            action(job, "usage.correct"), **{**hidden, "record": record.pk, "quantity": "0", "reason": "a blank image"}
        )
    assert balances_by_kind(alice.tenant)["revenue"] - before == -500
    [event] = events(alice.tenant, "usage.correct")
    assert (event.actor, event.details["reason"]) == (f"operator:{finance.name}", "a blank image")
    assert "price difference of a usage correction" in finance.get(f"/admin/jobs/job/{job.pk}/change/").text


def test_who_only_looks_corrects_nothing_and_agrees_on_nothing(viewer, alice, submit, end):
    job = end(submit(alice))
    assert viewer.get(action(job, "usage.correct")).status_code == 403
    assert viewer.get(action(alice.tenant, "contract.make")).status_code == 403
