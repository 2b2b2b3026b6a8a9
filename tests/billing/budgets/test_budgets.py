import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connections
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.budgets.budgets import (
    BudgetInvalid,
    BudgetNotFound,
    budget_charged_micros,
    budget_remove,
    budget_set,
    budgets_of,
)
from billing.invoices.adjustments import adjustment_make
from billing.ledger.accounts import balances_by_kind
from billing.ledger.budget_months import BudgetExceeded
from billing.ledger.holds import hold_post, hold_void
from billing.ledger.postings import balance_adjust, usage_charge
from billing.models import BudgetCrossing, BudgetHold, BudgetMonth, Meter, Transaction
from billing.profiles import profile_set
from tenants.accounts import project_create
from tenants.keys import key_issue
from tests.conftest import NOW, PEPPER, take_hold
from tests.profiles import examples

DOLLAR = 1_000_000
DAY = timedelta(days=1)
APRIL = datetime(2026, 4, 1, tzinfo=UTC)


def budget(customer, dollars, *, hard_stop=True, unfinished=(), now=NOW, **of):
    return budget_set(
        tenant=customer.tenant,
        amount_micros=dollars * DOLLAR,
        hard_stop=hard_stop,
        unfinished=lambda: unfinished,
        now=now,
        **of,
    )


def hold(customer, dollars, *, now=NOW, project=None, api_key=None):
    reference = uuid.uuid4()
    take_hold(
        tenant=customer.tenant,
        project=project or customer.project,
        api_key=api_key or customer.key,
        amount_micros=dollars * DOLLAR,
        reference=reference,
        now=now,
    )
    return reference


def post(customer, reference, dollars, *, now=NOW):
    hold_post(tenant=customer.tenant, amounts={"image_unit": dollars * DOLLAR}, reference=reference, now=now)


def spent_and_held(customer, *, now=NOW):
    """(spent, held) of each budget, in dollars."""
    return [
        (found.spent_micros // DOLLAR, found.held_micros // DOLLAR) for found in budgets_of(customer.tenant, now=now)
    ]


@pytest.fixture
def alice(customer):
    return customer(name="alice", credit="1000")


def test_a_hard_stop_refuses_what_its_budget_has_not_left(alice):
    budget(alice, 5)
    post(alice, hold(alice, 3), 2)
    hold(alice, 2)
    with pytest.raises(BudgetExceeded) as refusal:
        hold(alice, 2)
    assert str(refusal.value) == (
        "this request may cost up to 2.000000 USD, and 1.000000 USD is left of your account's budget of 5.000000 USD a"
        " month; the next month begins at 2026-04-01T00:00:00+00:00"
    )
    assert spent_and_held(alice) == [(2, 2)]
    assert balances_by_kind(alice.tenant)["held"] == 2 * DOLLAR


def test_a_budget_without_a_hard_stop_counts_and_refuses_nothing(alice):
    budget(alice, 1, hard_stop=False)
    post(alice, hold(alice, 3), 3)
    assert spent_and_held(alice) == [(3, 0)]


def test_a_budget_is_of_a_project_or_a_key_and_others_spend_on(alice):
    other = project_create(tenant=alice.tenant, slug="other", now=NOW)
    second, _ = key_issue(project=other, pepper=PEPPER, now=NOW)
    budget(alice, 9)
    budget(alice, 2, project=other)
    budget(alice, 4, api_key=alice.key)
    hold(alice, 4)
    with pytest.raises(BudgetExceeded, match=f"left of the budget of the API key {alice.key.key_id} of 4"):
        hold(alice, 1)
    hold(alice, 2, project=other, api_key=second)
    with pytest.raises(BudgetExceeded, match="left of the budget of the project 'other' of 2"):
        hold(alice, 1, project=other, api_key=second)
    hold(alice, 3, api_key=second)
    with pytest.raises(BudgetExceeded, match="left of your account's budget of 9"):
        hold(alice, 1, api_key=second)
    assert spent_and_held(alice) == [(0, 9), (0, 4), (0, 2)]


def test_what_a_voided_job_held_is_left_again(alice):
    budget(alice, 5)
    hold_void(tenant=alice.tenant, reference=hold(alice, 5), now=NOW)
    hold(alice, 5)
    assert BudgetHold.objects.filter(budget_month__budget__tenant=alice.tenant).count() == 1


def test_settling_twice_counts_once(alice):
    budget(alice, 5)
    reference = hold(alice, 3)
    for _ in range(2):
        post(alice, reference, 2)
        hold_void(tenant=alice.tenant, reference=reference, now=NOW)
    assert spent_and_held(alice) == [(2, 0)]


def test_a_free_request_is_never_over_a_budget(alice):
    budget(alice, 0)
    hold(alice, 0)
    with pytest.raises(BudgetExceeded):
        hold(alice, 1)


def test_a_job_counts_in_the_month_in_which_it_was_admitted(alice):
    budget(alice, 5)
    reference = hold(alice, 5, now=APRIL - timedelta(seconds=1))
    hold(alice, 5, now=APRIL)
    post(alice, reference, 4, now=APRIL + DAY)
    assert [spent_and_held(alice, now=now) for now in (NOW, APRIL)] == [[(4, 0)], [(0, 5)]]


def test_a_month_is_of_the_tenants_own_time_zone(alice):
    profile_set(tenant=alice.tenant, changes={"time_zone": "Asia/Tokyo"}, now=NOW)
    budget(alice, 5)
    hold(alice, 5)
    with pytest.raises(BudgetExceeded, match="begins at 2026-03-31T15:00:00"):
        hold(alice, 1, now=datetime(2026, 3, 31, 14, 59, tzinfo=UTC))
    hold(alice, 5, now=datetime(2026, 3, 31, 15, tzinfo=UTC))


def test_what_is_charged_without_a_hold_is_counted_and_never_refused(alice):
    other = project_create(tenant=alice.tenant, slug="other", now=NOW)
    budget(alice, 1)
    budget(alice, 1, project=other)
    budget(alice, 1, api_key=alice.key)
    posting = {"reference": uuid.uuid4(), "now": NOW}
    for _ in range(2):
        usage_charge(project=other, meter="storage_gb_second", amount_micros=4 * DOLLAR, **posting)
        correct = {"kind": Transaction.Kind.CORRECT, **posting}
        usage_charge(project=alice.project, meter="image_unit", amount_micros=-DOLLAR, **correct)
        balance_adjust(tenant=alice.tenant, amount_micros=2 * DOLLAR, **posting)
    assert spent_and_held(alice) == [(5, 0), (0, 0), (4, 0)]


def test_a_budget_made_in_mid_month_counts_what_is_held_and_was_charged(alice, prices, charged):
    """Of its owner alone, and of this month alone."""
    other = project_create(tenant=alice.tenant, slug="other", now=NOW)
    charged(alice, now=NOW - 2 * DAY, ended=NOW)  # admitted in February
    mine, theirs = charged(alice, now=NOW), charged(alice, now=NOW, project=other)
    running = hold(alice, 3)
    for of in ({}, {"project": alice.project}, {"api_key": alice.key}):
        made = budget(alice, 5, unfinished=[running], now=NOW + DAY, **of)
        month = BudgetMonth.objects.get(budget=made)
        assert month.held_micros == 3 * DOLLAR
        assert month.spent_micros == (mine if "project" in of else mine + theirs)
    post(alice, running, 1, now=NOW + DAY)
    assert {spent for spent, _ in spent_and_held(alice)} == {1}
    with pytest.raises(BudgetExceeded):
        hold(alice, 4)


@pytest.fixture
def charged(prices):
    """Draws an image of some hundred units for a customer and returns what it was charged."""
    from billing.pricing.rating import Prices, Quantity
    from billing.usage.settlement import settle

    def make(customer, *, now, ended=None, project=None):
        job_id, project = uuid.uuid4(), project or customer.project
        take_hold(
            tenant=customer.tenant,
            project=project,
            api_key=customer.key,
            amount_micros=DOLLAR,
            reference=job_id,
            now=now,
        )
        return settle(
            project=project,
            job_id=job_id,
            quantities=[Quantity(meter=Meter.IMAGE_UNIT, amount=Decimal(100))],
            dimensions={"model": "m", "api_key": customer.key.key_id},
            prices=Prices.in_force(tenant=customer.tenant, now=now),
            now=ended or now,
        )

    return make


def test_what_a_budgets_months_have_counted_is_what_was_charged(alice, charged):
    made = budget(alice, 5)
    charged(alice, now=NOW)
    charged(alice, now=APRIL - DAY, ended=APRIL + DAY)
    counted = sum(BudgetMonth.objects.filter(budget=made).values_list("spent_micros", flat=True))
    assert counted == budget_charged_micros(made) > 0


def test_each_threshold_is_crossed_once_in_the_transaction_that_reaches_it(alice):
    made = budget(alice, 10, hard_stop=False)

    def crossed():
        rows = BudgetCrossing.objects.filter(budget_month__budget=made).order_by("percent")
        return [(row.percent, row.spent_micros // DOLLAR) for row in rows]

    post(alice, hold(alice, 4), 4)
    assert crossed() == []
    post(alice, hold(alice, 9), 1)
    assert crossed() == [(50, 5)]
    post(alice, hold(alice, 7), 7)
    post(alice, hold(alice, 7), 7)
    assert crossed() == [(50, 5), (80, 12), (100, 12)]


def test_after_a_raise_the_thresholds_that_are_reached_again_are_notified_again(alice):
    made = budget(alice, 10, hard_stop=False)
    post(alice, hold(alice, 10), 10)
    budget(alice, 20, hard_stop=False)
    found = BudgetCrossing.objects.filter(budget_month__budget=made)
    assert list(found.values_list("percent", flat=True)) == [50]
    post(alice, hold(alice, 6), 6)
    assert sorted(found.values_list("percent", flat=True)) == [50, 80]


def test_a_removed_budget_holds_nothing_back(alice):
    made = budget(alice, 1)
    reference = hold(alice, 1)
    budget_remove(tenant=alice.tenant, budget_id=made.pk)
    post(alice, hold(alice, 5), 5)
    post(alice, reference, 1)
    assert spent_and_held(alice) == []


def test_a_tenant_changes_its_budget_in_place_and_nobody_elses(alice, bob):
    made = budget(alice, 1)
    assert budget(alice, 2, hard_stop=False).pk == made.pk
    with pytest.raises(BudgetNotFound):
        budget_remove(tenant=bob.tenant, budget_id=made.pk)
    with pytest.raises(BudgetInvalid, match="another account"):
        budget(bob, 1, project=alice.project)
    with pytest.raises(BudgetInvalid, match="not to both"):
        budget(alice, 1, project=alice.project, api_key=alice.key)


@pytest.mark.parametrize("micros", [-1, 10**15 + 1, 10**18])
def test_no_odd_amount_is_a_budget(alice, micros):
    with pytest.raises(BudgetInvalid):
        budget_set(tenant=alice.tenant, amount_micros=micros, hard_stop=True, unfinished=list, now=NOW, project=None)


def in_threads(count, work):
    """Runs `work(number)` in threads that begin at once, each with its own connection."""
    start = threading.Barrier(count)

    def run(number):
        start.wait()
        try:
            return work(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(run, range(count)))


@settings(max_examples=examples(1 / 3))
@given(
    asked=st.lists(st.integers(0, 4), min_size=6, max_size=6),
    charged=st.lists(st.sampled_from([None, 0, 50, 100]), min_size=6, max_size=6),
    room=st.integers(1, 9),
    made_meanwhile=st.booleans(),
)
def test_whatever_threads_ask_for_at_once_no_budget_is_overspent(customer, asked, charged, room, made_meanwhile):
    """Each thread holds, and posts a share of it, or keeps it held; the budget may be made while they do."""
    alice = customer(credit="1000")
    references = [uuid.uuid4() for _ in asked]

    def set_budget():
        return budget_set(
            tenant=alice.tenant,
            project=alice.project,
            amount_micros=room * DOLLAR,
            hard_stop=True,
            # A hold that isn't committed yet is none: the lock has waited for it, or it waits for the lock.
            unfinished=lambda: references,
            now=NOW,
        )

    made = None if made_meanwhile else set_budget()

    def work(number):
        nonlocal made
        if number == len(asked):
            made = made or set_budget()
            return 0
        try:
            take_hold(
                tenant=alice.tenant,
                project=alice.project,
                api_key=alice.key,
                amount_micros=asked[number] * DOLLAR,
                reference=references[number],
                now=NOW,
            )
        except BudgetExceeded:
            return 0
        if made_meanwhile or charged[number] is None:
            return asked[number] * DOLLAR
        cost = asked[number] * DOLLAR * charged[number] // 100
        hold_post(tenant=alice.tenant, amounts={"image_unit": cost}, reference=references[number], now=NOW)
        return cost

    used = sum(in_threads(len(asked) + 1, work))
    [found] = budgets_of(alice.tenant, now=NOW)
    assert found.spent_micros + found.held_micros == used
    if not made_meanwhile:
        assert used <= room * DOLLAR


def test_a_budget_made_beside_a_tenants_first_charge_counts_it(customer):
    """There is no account yet that either could lock."""
    for _ in range(5):
        dora = customer(credit="0")

        def work(number, dora=dora):
            if number:
                return budget(dora, 5)
            terms = {"reason": "r", "author": "operator:ann", "reference": uuid.uuid4(), "now": NOW}
            return adjustment_make(tenant=dora.tenant, amount_micros=DOLLAR, **terms)

        _, made = in_threads(2, work)
        assert spent_and_held(dora) == [(1, 0)]
        assert budget_charged_micros(made) == DOLLAR
