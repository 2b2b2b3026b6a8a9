"""Sums of jobs by the day: each that ended counts once, on the day of its end, whenever it commits."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal

import pytest
from django.db import DatabaseError, connection, connections, transaction
from django.db.models import Max, Sum

from billing.models import CostDay
from billing.usage.daily_costs import cost_day_seal
from easel.jobs import lifecycle
from easel.jobs.deletion import job_delete
from easel.jobs.models import DailyJobs, Job
from easel.observability.audit import daily_jobs_match_jobs
from tests.conftest import NOW
from tests.easel.reporting.conftest import select

DAY = timedelta(days=1)


@pytest.fixture
def tomorrow():
    """Noon of an unsealed day, another one for each test."""
    with transaction.atomic():
        newest = CostDay.objects.aggregate(newest=Max("day"))["newest"]
        return datetime.combine(newest + DAY, time(12), UTC)


def days_of(customer):
    """(day, state, resolution, jobs, images) of a tenant's jobs."""
    rows = select("job_days", tenant=customer.tenant.slug)
    return sorted((row["day"], row["state"], row["resolution"], row["jobs"], row["images"]) for row in rows)


def disagreements(*customers):
    """What the audit says of the customers' days; other tests move their own jobs in time."""
    tenants = [str(customer.tenant.pk) for customer in customers]
    return [line for line in daily_jobs_match_jobs(NOW) if any(tenant in line for tenant in tenants)]


def sums_of(customer):
    return DailyJobs.objects.filter(tenant=customer.tenant).aggregate(jobs=Sum("jobs"))["jobs"]


def expired(submit, customer, *, now, **spec):
    """A job that expired at `now`."""
    job = submit(customer, **spec)
    assert lifecycle.expire(job_id=job.id, now=max(now, job.expires_at))
    return Job.objects.get(id=job.id)


def test_a_job_counts_on_the_day_of_its_end_from_that_moment_on(alice, submit, tomorrow):
    waiting = submit(alice)
    assert days_of(alice) == []
    expired(submit, alice, now=tomorrow)
    assert days_of(alice) == [(tomorrow.date(), "expired", "256x256", 1, 1)]
    assert sums_of(alice) is None
    assert Job.objects.get(id=waiting.id).created_at.date() == NOW.date()


def test_a_day_has_the_same_sums_before_and_after_it_is_sealed(alice, submit, tomorrow):
    for size, n in (("256x256", 1), ("256x256", 2), ("512x512", 1)):
        expired(submit, alice, now=tomorrow, size=size, n=n)

    def reported():
        found = {}
        for row in select("job_days", tenant=alice.tenant.slug):
            alike = tuple(value for name, value in row.items() if name not in ("jobs", "images"))
            jobs, images = found.get(alike, (0, 0))
            found[alike] = jobs + row["jobs"], images + row["images"]
        return found

    before = reported()
    assert cost_day_seal(day=tomorrow.date(), now=tomorrow + DAY)
    assert reported() == before
    assert [(row[2], row[3], row[4]) for row in days_of(alice)] == [("256x256", 2, 3), ("512x512", 1, 1)]
    assert not disagreements(alice)


def test_a_job_that_ends_on_a_sealed_day_adds_itself(alice, submit):
    job = submit(alice)
    lifecycle.expire(job_id=job.id, now=job.expires_at)
    assert sums_of(alice) == 1
    assert len(days_of(alice)) == 1


def test_a_job_whose_end_commits_while_its_day_is_sealed_is_in_it(customer, submit, tomorrow):
    enders = [customer() for _ in range(4)]
    jobs = [[submit(one) for _ in range(4)] for one in enders]
    start = threading.Barrier(5)

    def end(mine):
        start.wait()
        try:
            for job in mine:
                lifecycle.expire(job_id=job.id, now=tomorrow)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as threads:
        ending = [threads.submit(end, mine) for mine in jobs]
        start.wait()
        cost_day_seal(day=tomorrow.date(), now=tomorrow + DAY)
        for one in ending:
            one.result()
    assert [sums_of(one) for one in enders] == [4] * 4
    assert not disagreements(*enders)


def test_an_end_that_is_rolled_back_is_not_counted(alice, submit):
    job = submit(alice)
    with transaction.atomic():
        lifecycle.expire(job_id=job.id, now=job.expires_at)
        transaction.set_rollback(True)
    assert sums_of(alice) is None


def test_a_job_whose_content_was_deleted_counts_as_before(alice, submit, tomorrow):
    job = expired(submit, alice, now=NOW)
    before = days_of(alice)
    job_delete(job=job, actor="test", now=tomorrow)
    assert days_of(alice) == before
    assert not disagreements(alice)


@pytest.mark.parametrize(
    ("seconds", "stored"),
    [(0.004, "0"), (0.0149, "0.016"), (0.996, "1"), (4.2, "3.981"), (50.2, "50.119"), (86_399, "79432.823")],
)
def test_seconds_are_stored_as_one_of_ten_steps_per_power_of_ten(seconds, stored):
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT jobs_step_of_ten(%s::numeric)", [seconds])
        assert cursor.fetchone()[0] == Decimal(stored)


def test_the_sums_are_append_only(alice, submit):
    expired(submit, alice, now=NOW)
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        DailyJobs.objects.filter(tenant=alice.tenant).delete()


def test_audit_names_a_day_whose_sums_are_not_its_jobs(alice, submit):
    job = expired(submit, alice, now=NOW)
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL session_replication_role = replica")  # as one who would go round the triggers
            cursor.execute("UPDATE jobs_job SET state = 'canceled' WHERE id = %s", [job.id])
        found = disagreements(alice)
        transaction.set_rollback(True)
    day = job.finished_at.date()
    assert [line for line in found if line.startswith(f"the daily jobs of {day}")]
