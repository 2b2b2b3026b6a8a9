import threading
import uuid
from datetime import timedelta

import pytest
from django.db import OperationalError

from core.idempotency import idempotent
from core.models import IdempotentRequest
from easel.jobs import dispatch
from easel.jobs.models import Attempt, Job, Output
from easel.processes import scheduler
from tests.conftest import NOW


def test_a_lease_that_ran_out_gives_the_job_back(alice, pool, submit):
    job = submit(alice)
    (attempt,) = dispatch.release(pool=pool, now=NOW, lease_seconds=15)
    scheduler.lose_silent_attempts(NOW + timedelta(seconds=15), tenants=[alice.tenant])
    assert Attempt.objects.get(token=attempt.token).state == "lost"
    assert Job.objects.get(id=job.id).state == "queued"


def test_a_lease_that_runs_is_left_alone(alice, pool, submit):
    submit(alice)
    (attempt,) = dispatch.release(pool=pool, now=NOW, lease_seconds=15)
    scheduler.lose_silent_attempts(NOW + timedelta(seconds=14), tenants=[alice.tenant])
    assert Attempt.objects.get(token=attempt.token).state == "live"


@pytest.mark.parametrize(("seconds", "state"), [(3599, "queued"), (3600, "expired")])
def test_a_job_that_nobody_took_in_its_hour_expires(alice, submit, seconds, state):
    job = submit(alice)
    scheduler.expire_jobs(NOW + timedelta(seconds=seconds), tenants=[alice.tenant])
    assert Job.objects.get(id=job.id).state == state


def test_an_idempotency_key_is_forgotten_after_a_day(alice):
    for key, now in (("old", NOW - timedelta(hours=25)), ("new", NOW)):
        idempotent(tenant=alice.tenant, endpoint="jobs", key=key, body={}, now=now, make=uuid.uuid4)
    scheduler.delete_idempotency_keys(NOW)
    assert [row.key for row in IdempotentRequest.objects.filter(tenant=alice.tenant)] == ["new"]


def test_every_task_is_called_until_the_scheduler_is_stopped(monkeypatch):
    stop, called = threading.Event(), []

    def often(now):
        called.append("often")
        return 1

    def rarely(now):
        called.append("rarely")
        if called.count("rarely") == 2:
            stop.set()
        return 0

    monkeypatch.setattr(scheduler, "PERIODIC", ((0.01, often), (0.05, rarely)))
    scheduler.run(stop)
    assert called.count("often") > called.count("rarely") == 2


@pytest.mark.parametrize("error", [OperationalError("no route to host"), OSError("the bucket keeps it")])
def test_a_dependency_that_is_away_stops_neither_the_scheduler_nor_its_other_tasks(monkeypatch, error):
    stop, called = threading.Event(), []

    def away(now):
        called.append("away")
        raise error

    def healthy(now):
        if called.count("away") == 2:
            stop.set()
        return 0

    monkeypatch.setattr(scheduler, "PERIODIC", ((0.01, away), (0.01, healthy)))
    scheduler.run(stop)
    assert called == ["away", "away"]


def test_old_images_are_deleted_and_young_ones_stay(alice, submit, end):
    for days in (31, 29):
        end(submit(alice, now=NOW - timedelta(days=days)))
    scheduler.delete_what_aged_out(NOW)
    outputs = Output.objects.filter(job__tenant=alice.tenant).order_by("id")
    assert [output.deleted_at for output in outputs] == [NOW, None]
