import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import DatabaseError, IntegrityError, connection, connections, transaction

from billing.ledger.accounts import (
    CreditLimitBelowDebt,
    Kind,
    balance_of,
    balances_by_kind,
    credit_limit_set,
    transaction_record,
)
from billing.ledger.grants import grants_expire
from billing.ledger.holds import InsufficientBalance, hold_post
from billing.ledger.postings import balance_adjust, credit_grant, debt_write_off, usage_charge
from billing.models import Contract, CreditDraw, CreditGrant, Transaction
from easel.observability.audit import grants_match_credit
from tests.billing.conftest import wait_until_somebody_waits_for
from tests.conftest import NOW, take_hold

DOLLAR = 1_000_000
DAY = timedelta(days=1)


def give(customer, dollars, **terms):
    reference = uuid.uuid4()
    credit_grant(tenant=customer.tenant, amount_micros=dollars * DOLLAR, reference=reference, now=NOW, **terms)
    return CreditGrant.objects.get(transaction__reference=reference)


def hold(customer, dollars):
    reference = uuid.uuid4()
    take_hold(tenant=customer.tenant, amount_micros=dollars * DOLLAR, reference=reference, now=NOW)
    return reference


def spend(customer, dollars):
    reference = hold(customer, dollars)
    amounts = {"image_unit": dollars * DOLLAR}
    return hold_post(tenant=customer.tenant, amounts=amounts, reference=reference, now=NOW)


def left(*grants):
    return [CreditGrant.objects.get(pk=grant.pk).remaining_micros // DOLLAR for grant in grants]


def credit(customer):
    return balances_by_kind(customer.tenant)["credit"] // DOLLAR


@pytest.fixture
def dora(customer):
    """Without credit."""
    return customer(credit="0")


@pytest.fixture(autouse=True)
def what_is_left_of_grants_is_the_credit():
    yield
    assert not list(grants_match_credit(NOW))


def test_the_lowest_priority_is_spent_first_then_what_expires_first(dora):
    late = give(dora, 5, expires_at=NOW + 9 * DAY)
    paid = give(dora, 5)
    soon = give(dora, 5, expires_at=NOW + DAY)
    gift = give(dora, 2, priority=10)
    spend(dora, 9)
    assert left(gift, soon, late, paid) == [0, 0, 3, 5]


def test_a_draw_says_which_grant_paid_for_what(dora):
    gift, paid = give(dora, 2, priority=10), give(dora, 5)
    made = spend(dora, 3)
    draws = CreditDraw.objects.filter(transaction=made).order_by("amount_micros")
    assert [(draw.grant, draw.amount_micros) for draw in draws] == [(paid, DOLLAR), (gift, 2 * DOLLAR)]


def test_what_is_left_of_a_grant_is_taken_when_it_expires(dora):
    gift, paid = give(dora, 5, expires_at=NOW + DAY), give(dora, 1)
    spend(dora, 2)
    assert grants_expire(now=NOW + DAY - timedelta(microseconds=1)) == 0
    grants_expire(now=NOW + DAY)
    assert (left(gift, paid), credit(dora), balances_by_kind(dora.tenant)["expired"]) == ([0, 1], 1, 3 * DOLLAR)
    grants_expire(now=NOW + 2 * DAY)
    assert credit(dora) == 1


def test_what_a_job_holds_when_a_grant_expires_stays_the_jobs(dora):
    gift = give(dora, 5, expires_at=NOW + DAY)
    running = hold(dora, 4)
    grants_expire(now=NOW + DAY)
    assert (left(gift), credit(dora)) == ([4], 0)
    hold_post(tenant=dora.tenant, amounts={"image_unit": 3 * DOLLAR}, reference=running, now=NOW + DAY)
    assert (left(gift), credit(dora)) == ([1], 1)
    grants_expire(now=NOW + DAY)
    assert (left(gift), credit(dora)) == ([0], 0)


def test_a_postpaid_tenant_spends_down_to_its_limit(dora):
    credit_limit_set(tenant=dora.tenant, limit_micros=5 * DOLLAR)
    spend(dora, 4)
    with pytest.raises(InsufficientBalance, match=r"1\.000000 USD is available"):
        hold(dora, 2)
    spend(dora, 1)
    assert credit(dora) == -5


def test_a_payment_makes_up_for_what_is_owed_first(dora):
    credit_limit_set(tenant=dora.tenant, limit_micros=5 * DOLLAR)
    spend(dora, 4)
    paid = give(dora, 6)
    assert (left(paid), credit(dora)) == ([2], 2)


def test_a_limit_below_the_debt_is_refused(dora):
    credit_limit_set(tenant=dora.tenant, limit_micros=5 * DOLLAR)
    spend(dora, 4)
    with pytest.raises(CreditLimitBelowDebt, match=r"4\.000000 USD"):
        credit_limit_set(tenant=dora.tenant, limit_micros=3 * DOLLAR)


def test_the_database_refuses_credit_below_its_limit(dora):
    give(dora, 1)
    with pytest.raises(IntegrityError, match="credit_within_its_limit"), transaction.atomic():
        expiry = Transaction(kind="expire", tenant=dora.tenant, reference=uuid.uuid4(), created_at=NOW)
        transaction_record(expiry, {(Kind.CREDIT, ""): -2 * DOLLAR, (Kind.EXPIRED, ""): 2 * DOLLAR})


def test_a_correction_gives_back_what_was_charged_too_much(dora):
    give(dora, 5)
    spend(dora, 5)
    fields = {"kind": Transaction.Kind.CORRECT, "reference": uuid.uuid4(), "now": NOW}
    usage_charge(project=dora.project, meter="image_unit", amount_micros=-2 * DOLLAR, **fields)
    assert (credit(dora), balances_by_kind(dora.tenant)["revenue"]) == (2, 3 * DOLLAR)
    assert CreditGrant.objects.get(tenant=dora.tenant, category="refund").remaining_micros == 2 * DOLLAR


def test_an_adjustment_takes_what_there_is_and_the_rest_is_owed(dora):
    give(dora, 1)
    balance_adjust(tenant=dora.tenant, amount_micros=3 * DOLLAR, reference=uuid.uuid4(), now=NOW)
    assert (credit(dora), balances_by_kind(dora.tenant)["receivable"]) == (0, -2 * DOLLAR)


def test_a_debt_that_is_written_off_is_gone_and_stays_on_record(dora):
    credit_limit_set(tenant=dora.tenant, limit_micros=5 * DOLLAR)
    spend(dora, 4)
    balance_adjust(tenant=dora.tenant, amount_micros=3 * DOLLAR, reference=uuid.uuid4(), now=NOW)
    debt_write_off(tenant=dora.tenant, reference=uuid.uuid4(), now=NOW)
    found = balances_by_kind(dora.tenant)
    assert (found["credit"], found["receivable"], found["write_off"]) == (0, 0, -7 * DOLLAR)


def test_a_first_debt_is_seen_by_whoever_waited_for_it(dora):
    """The account of what is owed is added while the other waits for the tenant's credit."""
    give(dora, 1)

    def give_up():
        try:
            return debt_write_off(tenant=dora.tenant, reference=uuid.uuid4(), now=NOW)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic():
            balance_adjust(tenant=dora.tenant, amount_micros=3 * DOLLAR, reference=uuid.uuid4(), now=NOW)
            given_up = threads.submit(give_up)
            wait_until_somebody_waits_for(connection)
        assert given_up.result() is not None
    assert balance_of(dora.tenant).owed == 0


def test_revenue_is_booked_by_meter(dora):
    give(dora, 5)
    reference = hold(dora, 5)
    amounts = {"gpu_second": DOLLAR, "image_unit": 2 * DOLLAR}
    hold_post(tenant=dora.tenant, amounts=amounts, reference=reference, now=NOW)
    rows = dora.tenant.accounts.filter(kind="revenue").values_list("meter", "balance_micros")
    assert dict(rows) == amounts


@pytest.mark.parametrize(
    "change", ["remaining_micros = remaining_micros + 1", "amount_micros = 9", "expires_at = now()", "priority = 0"]
)
def test_the_database_lets_a_grant_be_spent_and_nothing_else(dora, change):
    grant = give(dora, 5)
    spend(dora, 2)
    with pytest.raises(DatabaseError, match="spent, not changed"), connection.cursor() as cursor:
        cursor.execute(f"UPDATE billing_creditgrant SET {change} WHERE id = %s", [grant.id])


def test_the_database_refuses_contracts_that_overlap(dora):
    Contract.objects.create(tenant=dora.tenant, starts_at=NOW, ends_at=NOW + 9 * DAY, created_at=NOW)
    Contract.objects.create(tenant=dora.tenant, starts_at=NOW + 9 * DAY, created_at=NOW)
    with pytest.raises(IntegrityError, match="overlap"), transaction.atomic():
        Contract.objects.create(tenant=dora.tenant, starts_at=NOW + 30 * DAY, created_at=NOW)
