"""The image units of a month, from a job's admission to its end."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connections, transaction

from billing.ledger.holds import InsufficientBalance
from billing.models import Meter
from billing.pricing.price_books import RateTerms, price_book_seed
from easel.jobs import lifecycle
from easel.jobs.models import Job
from easel.observability import audit
from tenants.keys import key_rotate
from tenants.models import MonthlyUse, Tenant
from tenants.quotas import ConcurrencyExceeded, ImageQuotaExceeded, QueueFull, quota_set, units_used
from tests.conftest import NOW, PEPPER

THREADS = 8


def counts(customer):
    """The month's units of the account and of the key's family."""
    used = units_used(customer.key, now=NOW)
    return used[None], used[customer.key.family_id]


def lines_about(customer):
    return [line for line in audit.months_match_jobs(NOW) if customer.tenant.slug in line]


def rotated(customer):
    """The customer with the key that its key is rotated to."""
    key, secret = key_rotate(key=customer.key, pepper=PEPPER, now=NOW)
    return dataclasses.replace(customer, key=key, secret=secret)


def at_once(*functions):
    """What functions returned or were refused with, called in turn from threads that start together."""
    start = threading.Barrier(THREADS)

    def call(number):
        start.wait()
        try:
            return functions[number % len(functions)]()
        except (ConcurrencyExceeded, ImageQuotaExceeded) as error:
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(call, range(THREADS)))


def test_a_success_keeps_its_units_and_other_ends_give_them_back(alice, submit, end):
    end(submit(alice, n=2))
    for outcome in ("failed", "canceled"):
        end(submit(alice, n=3), outcome=outcome)
    assert counts(alice) == (Decimal("0.5"), Decimal("0.5"))


def test_an_expired_job_gives_its_units_back_once(alice, submit):
    submit(alice)
    job = submit(alice)
    for _ in range(2):
        lifecycle.expire(job_id=job.id, now=NOW + timedelta(hours=2))
    assert counts(alice) == (Decimal("0.25"), Decimal("0.25"))


def test_a_request_that_the_balance_refuses_takes_no_units(customer, submit):
    poor = customer(credit="0.0001")
    with pytest.raises(InsufficientBalance):
        submit(poor)
    assert not MonthlyUse.objects.filter(tenant=poor.tenant).exists()


def test_units_that_come_and_go_at_once_add_up(alice, submit):
    quota_set(tenant=alice.tenant, api_key=None, limits={"image_units_per_month": 1}, now=NOW)
    done = at_once(lambda: lifecycle.cancel(job=submit(alice), now=NOW))
    assert any(isinstance(job, Job) for job in done)
    assert counts(alice) == (0, 0)


def test_a_rotated_key_has_what_its_predecessors_have_left_of_the_month(alice, submit, end):
    quota_set(tenant=alice.tenant, api_key=alice.key, limits={"image_units_per_month": 1}, now=NOW)
    end(submit(alice, n=2))
    running = submit(alice)
    successor = rotated(rotated(alice))
    assert counts(successor) == (Decimal("0.75"), Decimal("0.75"))
    with pytest.raises(ImageQuotaExceeded):
        submit(successor, n=2)
    end(running, outcome="failed")  # it gives back what it took by the first key
    assert isinstance(submit(successor, n=2), Job)
    assert not lines_about(alice)


@pytest.mark.parametrize("limits", [{"image_units_per_month": 1}, {"concurrent_jobs_max": 4}, {"queued_jobs_max": 4}])
def test_the_limit_of_a_key_bounds_it_and_its_successor_in_sum(alice, submit, limits):
    """A request of the old key may be admitted in the moment of the rotation, and after it."""
    quota_set(tenant=alice.tenant, api_key=alice.key, limits=limits, now=NOW)
    successor = []

    def rotate_and_submit():
        if not successor:
            successor.append(rotated(alice))
        return [submitted(successor[0]) for _ in range(3)]

    def submitted(customer):
        try:
            return submit(customer)
        except (ConcurrencyExceeded, ImageQuotaExceeded, QueueFull) as error:
            return error

    rotations = iter([rotate_and_submit])
    answers = at_once(lambda: next(rotations, lambda: [submitted(alice) for _ in range(3)])())
    jobs = [answer for answers in answers for answer in answers if isinstance(answer, Job)]
    assert len(jobs) == Job.objects.filter(tenant=alice.tenant).count() == 4
    assert not isinstance(submitted(successor[0]), Job)
    lifecycle.cancel(job=jobs[0], now=NOW)
    assert submit(successor[0]).api_key == successor[0].key
    assert not lines_about(alice)


def test_jobs_at_once_are_limited_for_free_requests_too_whose_hold_locks_nothing(customer, submit):
    free_of = (Meter.GPU_SECOND, Meter.IMAGE_UNIT, Meter.REQUEST)
    rates = [RateTerms(meter=meter, unit_price=Decimal(0)) for meter in free_of]
    price_book_seed(currency="XTS", version=1, rates=rates, effective_at=NOW - timedelta(days=1), now=NOW)
    free = customer(credit="0")
    Tenant.objects.filter(pk=free.tenant.pk).update(currency="XTS")
    free.key.tenant.refresh_from_db()
    quota_set(tenant=free.tenant, api_key=None, limits={"concurrent_jobs_max": 3}, now=NOW)
    assert sum(isinstance(answer, Job) for answer in at_once(lambda: submit(free))) == 3


def test_the_audit_finds_a_month_that_its_jobs_do_not_make_up(alice, submit, end):
    end(submit(alice))
    end(submit(alice), outcome="failed")
    assert not lines_about(alice)
    with transaction.atomic():
        MonthlyUse.objects.filter(tenant=alice.tenant, api_key=None).update(image_units=7)
        assert lines_about(alice)
        transaction.set_rollback(True)
