"""What finance does about a tenant's credit, budgets and billing."""

import uuid

import pytest

from billing.ledger.accounts import balance_of, balances_by_kind
from billing.models import Adjustment, Budget, CreditGrant
from billing.profiles import profile_of
from tests.conftest import take_hold
from tests.easel.portal.conftest import hidden_fields
from tests.easel.portal.test_actions import action, events

DOLLAR = 1_000_000


def page_of(browser, customer):
    return browser.get(f"/admin/tenants/tenant/{customer.tenant.pk}/change/").text


def test_a_grant_with_its_terms_is_given_and_shown(finance, alice):
    fields = {"amount": "5", "reason": "r", "priority": "1", "promotional": "on", "expires": "2099-01-01"}
    finance.fill_in(action(alice.tenant, "credit.grant"), **fields)
    grant = CreditGrant.objects.get(tenant=alice.tenant, priority=1)
    assert (grant.category, grant.expires_at.isoformat()) == ("promotional", "2099-01-01T00:00:00+00:00")
    assert "given away" in page_of(finance, alice)


@pytest.mark.parametrize(("direction", "credit"), [("credit", 12), ("debit", 8)])
def test_an_adjustment_sent_twice_is_made_once_with_its_reason_and_author(finance, alice, direction, credit):
    token = hidden_fields(finance.get(action(alice.tenant, "credit.adjust")).text)["token"]
    for _ in range(2):
        finance.post(
            action(alice.tenant, "credit.adjust"), direction=direction, amount="2", reason="ticket 7", token=token
        )
    assert balances_by_kind(alice.tenant)["credit"] == credit * DOLLAR
    made = Adjustment.objects.get(tenant=alice.tenant)
    assert (made.reason, made.author) == ("ticket 7", f"operator:{finance.name}")
    assert len(events(alice.tenant, "credit.adjust")) == 1
    assert "ticket 7" in page_of(finance, alice)


def test_a_debt_is_written_off_once(finance, alice):
    token = str(uuid.uuid4())
    page = finance.post(action(alice.tenant, "credit.write_off"), reason="r", token=token)
    assert (page.status_code, Adjustment.objects.filter(tenant=alice.tenant).count()) == (302, 0)
    finance.fill_in(action(alice.tenant, "credit.adjust"), direction="debit", amount="13", reason="r")
    for _ in range(2):
        finance.post(action(alice.tenant, "credit.write_off"), reason="bankrupt", token=token)
    assert balances_by_kind(alice.tenant)["receivable"] == 0
    assert [event.details["amount"] for event in events(alice.tenant, "credit.write_off")] == ["3.000000 USD"]


def test_a_credit_limit_is_set_and_not_below_what_is_used(finance, alice):
    finance.fill_in(action(alice.tenant, "credit.limit"), amount="5", reason="r")
    take_hold(tenant=alice.tenant, amount_micros=14 * DOLLAR, reference=uuid.uuid4(), now=alice.tenant.created_at)
    refused = finance.fill_in(action(alice.tenant, "credit.limit"), amount="3", reason="r")
    assert "has already used 4.000000 USD" in refused.text
    assert balance_of(alice.tenant).limit == 5 * DOLLAR


def test_budgets_are_set_and_removed(finance, alice):
    finance.fill_in(action(alice.tenant, "budget.set"), amount="7", hard_stop="on", project=str(alice.project.pk))
    finance.fill_in(action(alice.key, "budget.set"), amount="3")
    found = Budget.objects.get(tenant=alice.tenant, project=alice.project)
    assert (found.amount_micros, found.hard_stop) == (7 * DOLLAR, True)
    assert "7.000000 USD" in page_of(finance, alice)
    finance.fill_in(action(alice.tenant, "budget.remove"), budget=str(found.pk))
    assert [budget.api_key for budget in Budget.objects.filter(tenant=alice.tenant)] == [alice.key]
    assert [len(events(alice.tenant, f"budget.{verb}")) for verb in ("set", "remove")] == [2, 1]


def test_a_billing_profile_is_set_and_a_zone_that_is_none_is_said_at_its_field(finance, alice):
    fields = {"legal_name": "A & B <Ltd>", "tax_name": "VAT", "tax_rate": "0.2", "time_zone": "Europe/London"}
    finance.fill_in(action(alice.tenant, "billing_profile.set"), **fields)
    assert (profile_of(alice.tenant).time_zone, str(profile_of(alice.tenant).tax_rate)) == ("Europe/London", "0.200000")
    page = page_of(finance, alice)
    assert "A &amp; B &lt;Ltd&gt;" in page
    refused = finance.fill_in(action(alice.tenant, "billing_profile.set"), **{**fields, "time_zone": "Mars/Olympus"})
    assert "there is no time zone" in refused.text


@pytest.mark.parametrize("amount", ["", "nan", "-1", "1e30", "1234567890123456789", "0.0000001", "1,5"])
@pytest.mark.parametrize("name", ["credit.adjust", "credit.limit", "budget.set"])
def test_no_odd_amount_moves_or_limits_anything(finance, alice, name, amount):
    fields = {"amount": amount, "reason": "r", "direction": "debit"}
    assert finance.fill_in(action(alice.tenant, name), **fields).status_code == 200
    assert balance_of(alice.tenant).available == 10 * DOLLAR
    assert not Budget.objects.filter(tenant=alice.tenant).exists()


@pytest.mark.parametrize("name", ["credit.grant", "credit.adjust", "credit.limit", "budget.set", "billing_profile.set"])
def test_a_viewer_moves_nothing(viewer, alice, name):
    assert viewer.get(action(alice.tenant, name)).status_code == 403
