import dataclasses
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

import pytest
from django.db import connections, transaction

from billing.budgets.budgets import budgets_follow, budgets_of
from billing.ledger.accounts import balances_by_kind
from billing.ledger.budget_months import BudgetExceeded
from billing.ledger.holds import hold_void
from billing.models import BudgetHold, BudgetMonth
from easel.jobs.budgets import budget_set
from easel.jobs.models import Job
from easel.observability.audit import budgets_match_charges
from easel.storage import store
from tenants.keys import key_rotate
from tests.conftest import NOW, PEPPER


@pytest.fixture(autouse=True)
def what_budgets_counted_is_what_was_charged_and_is_held(alice):
    yield
    own = [str(budget.pk) for budget in alice.tenant.budgets.all()]
    assert not [line for line in budgets_match_charges(NOW) if any(pk in line for pk in own)]


def test_a_refused_job_leaves_nothing(alice, submit):
    budget_set(tenant=alice.tenant, amount_micros=1, hard_stop=True, now=NOW)
    with pytest.raises(BudgetExceeded):
        submit(alice)
    assert not Job.objects.filter(tenant=alice.tenant).exists()
    assert balances_by_kind(alice.tenant)["held"] == 0
    assert BudgetMonth.objects.get(budget__tenant=alice.tenant).held_micros == 0


def test_a_job_that_ends_gives_back_what_it_did_not_cost(alice, submit, end):
    budget_set(tenant=alice.tenant, project=alice.project, amount_micros=10**6, hard_stop=True, now=NOW)
    end(submit(alice))
    end(submit(alice), outcome="failed")
    [found] = budgets_of(alice.tenant, now=NOW)
    assert (found.spent_micros, found.held_micros) == (balances_by_kind(alice.tenant)["revenue"], 0)


def test_an_answer_from_the_cache_counts_what_it_costs(alice, submit, end):
    budget_set(tenant=alice.tenant, amount_micros=10**6, hard_stop=True, now=NOW)
    for output in end(submit(alice, seed=5)).outputs.all():
        store().put(output.storage_key, io.BytesIO(b"an image"), "image/png")
    before = budgets_of(alice.tenant, now=NOW)[0].spent_micros
    submit(alice, seed=5)
    [found] = budgets_of(alice.tenant, now=NOW)
    assert (found.spent_micros > before, found.held_micros) == (True, 0)


def test_a_budget_made_while_jobs_come_and_go_counts_every_one_of_them(alice, submit, end):
    """Threads admit and end jobs; in the middle of it the budgets are made."""
    start = threading.Barrier(5)

    def work(number):
        start.wait()
        try:
            if number == 0:
                for of in ({}, {"project": alice.project}, {"api_key": alice.key}):
                    budget_set(tenant=alice.tenant, amount_micros=10**9, hard_stop=True, now=NOW, **of)
                return
            for turn in range(6):
                job = submit(alice)
                if turn % 3:
                    hold_void(tenant=alice.tenant, reference=job.id, now=NOW)
                    Job.objects.filter(id=job.id).update(state="canceled", finished_at=NOW)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(5) as threads:
        list(threads.map(work, range(5)))
    held = balances_by_kind(alice.tenant)["held"]
    assert {found.held_micros for found in budgets_of(alice.tenant, now=NOW)} == {held}
    assert held > 0


def test_the_budget_of_a_key_bounds_it_and_its_successor_in_sum(alice, submit, end):
    """Half of the threads go on with the old key while it is rotated, and its budget follows it."""
    submit(alice, now=NOW - timedelta(days=1))
    cost = balances_by_kind(alice.tenant)["held"]
    budget_set(tenant=alice.tenant, api_key=alice.key, amount_micros=5 * cost, hard_stop=True, now=NOW)
    end(submit(alice), outcome="failed")
    start = threading.Barrier(4)

    def work(number):
        start.wait()
        customer = alice
        try:
            if number == 0:
                with transaction.atomic():
                    key, _ = key_rotate(key=alice.key, pepper=PEPPER, now=NOW)
                    budgets_follow(alice.key, successor=key)
                customer = dataclasses.replace(alice, key=key)
            return [submitted(customer) for _ in range(3)]
        finally:
            connections.close_all()

    def submitted(customer):
        with suppress(BudgetExceeded):
            return submit(customer)

    with ThreadPoolExecutor(4) as threads:
        jobs = [job for jobs in threads.map(work, range(4)) for job in jobs if job]
    [found] = budgets_of(alice.tenant, now=NOW)
    assert (len(jobs), found.held_micros) == (5, 5 * cost)
    successor = dataclasses.replace(alice, key=found.budget.api_key)
    assert successor.key.family_id == alice.key.pk != successor.key.pk
    assert submitted(successor) is None
    end(jobs[0], outcome="failed")
    assert submitted(successor).api_key == successor.key


def test_a_new_budget_of_a_rotated_key_counts_what_its_predecessor_was_charged_and_holds(alice, submit, end):
    end(submit(alice))
    running = submit(alice)
    key, _ = key_rotate(key=alice.key, pepper=PEPPER, now=NOW)
    budget_set(tenant=alice.tenant, api_key=key, amount_micros=10**6, hard_stop=True, now=NOW)
    [found] = budgets_of(alice.tenant, now=NOW)
    balances = balances_by_kind(alice.tenant)
    assert (found.spent_micros, found.held_micros) == (balances["revenue"], balances["held"])
    end(running)
    assert budgets_of(alice.tenant, now=NOW)[0].spent_micros == balances_by_kind(alice.tenant)["revenue"]


def test_a_job_of_last_month_is_none_of_a_new_budgets(alice, submit, end):
    job = submit(alice, now=NOW - timedelta(days=1))
    budget_set(tenant=alice.tenant, amount_micros=10**6, hard_stop=True, now=NOW)
    assert not BudgetHold.objects.filter(reference=job.id).exists()
    end(job, seconds=86400)
    assert budgets_of(alice.tenant, now=NOW)[0].spent_micros == 0
