import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import DatabaseError, IntegrityError, connections, transaction
from hypothesis import given
from hypothesis import strategies as st

from billing.ledger.accounts import balance_lock, balances_by_kind
from billing.ledger.holds import HoldUnknown, InsufficientBalance, hold_post, hold_void
from billing.ledger.postings import credit_grant
from billing.models import Charge, Entry, LedgerAccount, PriceBook, Rate, Transaction, UsageRecord
from core.models import AuditEvent
from tests.billing.conftest import wait_until_somebody_waits_for
from tests.conftest import NOW, take_hold

DOLLAR = 1_000_000


def balances(customer):
    return balances_by_kind(customer.tenant)


def moved(customer):
    """The balances that are not zero."""
    return {kind: micros for kind, micros in balances(customer).items() if micros}


def hold(customer, amount, reference=None):
    reference = reference or uuid.uuid4()
    take_hold(tenant=customer.tenant, amount_micros=amount, reference=reference, now=NOW)
    return reference


def test_a_grant_is_credit_to_spend(customer):
    alice = customer(credit="0")
    credit_grant(tenant=alice.tenant, amount_micros=5 * DOLLAR, reference=uuid.uuid4(), now=NOW)
    assert moved(alice) == {"funding": -5 * DOLLAR, "credit": 5 * DOLLAR}


def test_a_hold_moves_credit_aside(alice):
    hold(alice, 3 * DOLLAR)
    assert (balances(alice)["credit"], balances(alice)["held"]) == (7 * DOLLAR, 3 * DOLLAR)


def test_a_post_charges_and_returns_the_rest(alice):
    reference = hold(alice, 3 * DOLLAR)
    hold_post(tenant=alice.tenant, amounts={"image_unit": DOLLAR}, reference=reference, now=NOW)
    assert moved(alice) == {"funding": -10 * DOLLAR, "credit": 9 * DOLLAR, "revenue": DOLLAR}


def test_a_void_returns_everything(alice):
    reference = hold(alice, 3 * DOLLAR)
    hold_void(tenant=alice.tenant, reference=reference, now=NOW)
    assert balances(alice)["credit"] == 10 * DOLLAR


def test_a_hold_over_the_balance_is_refused_and_leaves_nothing(alice):
    reference = uuid.uuid4()
    with pytest.raises(InsufficientBalance, match=r"10\.000000 USD is available"):
        hold(alice, 10 * DOLLAR + 1, reference)
    assert not Transaction.objects.filter(reference=reference).exists()


@pytest.mark.parametrize("settle_first", ["post", "void"])
def test_a_hold_is_settled_once(alice, settle_first):
    reference = hold(alice, 3 * DOLLAR)
    verbs = {
        "post": lambda: hold_post(tenant=alice.tenant, amounts={"image_unit": DOLLAR}, reference=reference, now=NOW),
        "void": lambda: hold_void(tenant=alice.tenant, reference=reference, now=NOW),
    }
    assert verbs.pop(settle_first)()
    before = balances(alice)
    (other,) = verbs.values()
    assert not other()
    assert balances(alice) == before


def test_a_void_and_a_post_at_once_settle_a_hold_once_whoever_has_the_accounts(alice):
    """The post takes the accounts first, as rating by the month does, while the void is on its way."""
    reference = hold(alice, 3 * DOLLAR)

    def void():
        try:
            return hold_void(tenant=alice.tenant, reference=reference, now=NOW)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic():
            balance_lock(alice.tenant)
            voided = threads.submit(void)
            wait_until_somebody_waits_for(connections["default"])
            assert hold_post(tenant=alice.tenant, amounts={"image_unit": DOLLAR}, reference=reference, now=NOW)
        assert voided.result() is False
    assert (balances(alice)["credit"], balances(alice)["held"]) == (9 * DOLLAR, 0)


@pytest.mark.parametrize("amount", [-1, 3 * DOLLAR + 1])
def test_a_charge_outside_its_hold_is_a_defect(alice, amount):
    reference = hold(alice, 3 * DOLLAR)
    with pytest.raises(ValueError, match="can't charge"):
        hold_post(tenant=alice.tenant, amounts={"image_unit": amount}, reference=reference, now=NOW)


def test_settling_what_was_never_held_is_a_defect(alice):
    with pytest.raises(HoldUnknown):
        hold_void(tenant=alice.tenant, reference=uuid.uuid4(), now=NOW)


def test_a_free_request_holds_and_posts_nothing(alice):
    reference = hold(alice, 0)
    assert hold_post(tenant=alice.tenant, amounts={"image_unit": 0}, reference=reference, now=NOW)
    assert balances(alice)["credit"] == 10 * DOLLAR


def test_every_verb_repeated_does_nothing(alice):
    reference, grant = uuid.uuid4(), uuid.uuid4()
    for _ in range(2):
        credit_grant(tenant=alice.tenant, amount_micros=DOLLAR, reference=grant, now=NOW)
        hold(alice, 3 * DOLLAR, reference)
    for _ in range(2):
        hold_post(tenant=alice.tenant, amounts={"image_unit": DOLLAR}, reference=reference, now=NOW)
    assert balances(alice)["credit"] == 10 * DOLLAR


def test_concurrent_holds_never_overspend(alice):
    """Twenty threads ask for a dollar each of ten."""
    start = threading.Barrier(20)

    def ask(_):
        start.wait()
        try:
            hold(alice, DOLLAR)
        except InsufficientBalance:
            return 0
        finally:
            connections.close_all()
        return 1

    with ThreadPoolExecutor(20) as threads:
        granted = sum(threads.map(ask, range(20)))
    assert granted == 10
    assert balances(alice)["credit"] == 0


@given(st.lists(st.tuples(st.integers(0, 4 * DOLLAR), st.floats(0, 1), st.booleans()), max_size=6))
def test_whatever_is_held_and_settled_money_is_conserved(customer, movements):
    alice = customer(credit="10")
    spent = 0
    for amount, share, charged in movements:
        try:
            reference = hold(alice, amount)
        except InsufficientBalance:
            assert balances(alice)["credit"] < amount
            continue
        if charged:
            spent += (cost := int(amount * share))
            hold_post(tenant=alice.tenant, amounts={"image_unit": cost}, reference=reference, now=NOW)
        else:
            hold_void(tenant=alice.tenant, reference=reference, now=NOW)
    found = balances(alice)
    assert (found["credit"], found["held"], found["revenue"]) == (10 * DOLLAR - spent, 0, spent)
    assert sum(found.values()) == 0


def test_the_database_refuses_entries_that_do_not_balance(alice):
    account = LedgerAccount.objects.get(tenant=alice.tenant, kind="credit")
    with pytest.raises(IntegrityError, match="out of balance"), transaction.atomic():
        row = Transaction.objects.create(
            tenant=alice.tenant, kind="grant", currency="USD", reference=uuid.uuid4(), created_at=NOW
        )
        Entry.objects.create(transaction=row, account=account, amount_micros=5)


def test_the_database_refuses_an_entry_on_another_tenants_account(alice, bob):
    theirs = LedgerAccount.objects.get(tenant=bob.tenant, kind="credit")
    with pytest.raises(IntegrityError, match="another tenant"), transaction.atomic():
        row = Transaction.objects.create(
            tenant=alice.tenant, kind="grant", currency="USD", reference=uuid.uuid4(), created_at=NOW
        )
        Entry.objects.create(transaction=row, account=theirs, amount_micros=5)


def test_the_database_refuses_a_balance_set_by_hand(alice):
    with pytest.raises(DatabaseError, match="balances follow from entries"):
        LedgerAccount.objects.filter(tenant=alice.tenant, kind="credit").update(balance_micros=10**12)


@pytest.mark.parametrize("model", [Transaction, Entry, UsageRecord, Charge, PriceBook, Rate, AuditEvent])
@pytest.mark.parametrize("change", ["update", "delete", "truncate"])
def test_the_database_refuses_to_change_what_is_append_only(model, change):
    table = model._meta.db_table
    statement = {
        "update": f"UPDATE {table} SET id = id",
        "delete": f"DELETE FROM {table}",
        "truncate": f"TRUNCATE {table} CASCADE",
    }[change]
    with pytest.raises(DatabaseError, match="append-only"), connections["default"].cursor() as cursor:
        cursor.execute(statement)
