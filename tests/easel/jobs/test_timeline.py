"""A job's timeline says what happened to it, in order, and divides its waits into their reasons."""

import json
from datetime import timedelta

import pytest

from easel.catalog.models import Pool
from easel.jobs import dispatch, lifecycle, queries
from easel.jobs.models import Attempt
from easel.jobs.timeline import job_timeline, timeline_json
from inference.contract import AttemptFinished, AttemptProgress, StoredOutput
from tenants.models import Tenant
from tests.conftest import NOW, worker_beat


def after(seconds):
    return NOW + timedelta(seconds=seconds)


class Shift:
    """A pool with one worker that runs one job at a time, or more, which the test moves through time."""

    def __init__(self, pool, *, concurrency=1):
        self.pool, self.concurrency = pool, concurrency

    def release(self, seconds):
        lifecycle.beat(
            pool=self.pool, report=worker_beat(concurrency=self.concurrency), now=after(seconds), lease_seconds=15
        )
        return dispatch.release(pool=self.pool, now=after(seconds), lease_seconds=15)

    def beat(self, attempt, seconds):
        progress = AttemptProgress(attempt_token=str(attempt.token), steps_done=1, steps_total=8)
        report = worker_beat(concurrency=self.concurrency, attempts=(progress,))
        lifecycle.beat(pool=self.pool, report=report, now=after(seconds), lease_seconds=15)

    def end(self, attempt, seconds, **fields):
        report = AttemptFinished(
            attempt_token=str(attempt.token),
            worker="w1",
            gpu_class="cpu",
            gpu_seconds=1.0,
            **{
                "outcome": "succeeded",
                "outputs": (StoredOutput(index=0, seed=1, sha256="0" * 64, size_bytes=10),),
                **fields,
            },
        )
        lifecycle.finish(pool=self.pool, report=report, now=after(seconds), attempts_max=3)


@pytest.fixture
def shift(pool):
    lifecycle.beat(pool=pool, report=worker_beat(concurrency=1), now=NOW, lease_seconds=15)
    return Shift(pool)


def moments(job, now=None):
    job = queries.job_get(tenant=job.tenant, job_id=job.pk)
    return job, job_timeline(job, list(job.attempts.all()), lease_seconds=15, now=now or after(1000))


def shown(job, now=None):
    """The rows as (seconds since the beginning, event, attempt), and those of waits with their reason and length."""
    rows = []
    for moment in moments(job, now)[1]:
        of_wait = (moment.reason, round(moment.seconds, 3)) if moment.event == "waited" else ()
        code = (moment.code,) if moment.code else ()
        rows.append(((moment.happened_at - NOW).total_seconds(), moment.event, moment.attempt, *of_wait, *code))
    return rows


def test_a_job_that_succeeds_at_once(alice, submit, shift):
    job = submit(alice)
    [attempt] = shift.release(0)
    shift.beat(attempt, 1)
    phases = {"adapters": 0.5, "prepared": 1.0, "first_step": 1.5, "steps": 4.0, "stored": 5.0}
    shift.end(attempt, 6, phases=phases)
    assert shown(job) == [
        (0, "queued", None),
        (0, "dispatched", 1),
        (1, "began", 1),
        (2, "prepared", 1),
        (2.5, "first_step", 1),
        (5, "steps_done", 1),
        (6, "stored", 1),
        (6, "succeeded", None),
    ]


def test_a_wait_for_a_busy_worker(alice, bob, submit, shift):
    submit(bob)
    [busy] = shift.release(0)
    job = submit(alice, now=after(1))
    assert shown(job, after(3)) == [(1, "queued", None), (1, "waited", None, "free_worker", 2)]
    shift.end(busy, 4)
    shift.release(4)
    assert shown(job)[1:3] == [(1, "waited", 1, "free_worker", 3), (4, "dispatched", 1)]


def test_the_places_that_others_got_divide_the_wait(alice, bob, submit, shift):
    """Of ten seconds, three lead to another job of mine, four to one of another tenant, the rest to the job."""
    other, me = sorted((alice, bob), key=lambda one: one.tenant.id)  # of equal virtual times, the least id is next
    submit(other)
    [running] = shift.release(0)
    own = submit(me, now=after(0))
    job = submit(me, now=after(0), priority=-1)
    shift.end(running, 3)
    [running] = shift.release(3)
    assert running.job_id == own.pk
    submit(other, now=after(3))
    shift.end(running, 7)
    [running] = shift.release(7)
    assert running.job.tenant == other.tenant
    shift.end(running, 10)
    shift.release(10)
    assert shown(job)[1:5] == [
        (0, "waited", 1, "own_jobs", 3),
        (3, "waited", 1, "other_tenants", 4),
        (7, "waited", 1, "free_worker", 3),
        (10, "dispatched", 1),
    ]


def test_a_wait_for_a_pool_that_lost_its_worker(alice, submit, shift):
    job = submit(alice)  # at the worker's last beat, which is taken for live for ten seconds more
    assert shown(job, after(30))[1:] == [
        (0, "waited", None, "free_worker", 10),
        (10, "waited", None, "no_live_worker", 20),
    ]
    shift.release(60)
    assert shown(job)[1:3] == [(0, "waited", 1, "free_worker", 10), (10, "waited", 1, "no_live_worker", 50)]


def test_a_wait_for_the_accounts_own_limit(alice, submit, shift):
    Tenant.objects.filter(pk=alice.tenant.pk).update(running_jobs_max=1)
    submit(alice)
    job = submit(alice, now=after(0.001))
    [first] = shift.release(1)
    assert shown(job, after(5))[1:] == [
        (0.001, "waited", None, "own_jobs", 0.999),
        (1, "waited", None, "concurrency_limit", 4),
    ]
    shift.end(first, 6)
    shift.release(6)
    assert shown(job)[1:3] == [
        (0.001, "waited", 1, "own_jobs", 0.999),
        (1, "waited", 1, "concurrency_limit", 5),
    ]


def test_a_worker_that_is_lost_and_the_retry(alice, submit, shift):
    job = submit(alice)
    [attempt] = shift.release(0)
    shift.beat(attempt, 2)
    lifecycle.lose(token=attempt.token, now=after(17), attempts_max=3)
    [retry] = shift.release(18)
    shift.end(retry, 20)
    rows = shown(job)
    assert rows[:6] == [
        (0, "queued", None),
        (0, "dispatched", 1),
        (2, "began", 1),
        (2, "waited", 1, "worker_lost", 15),
        (17, "attempt_lost", 1, "worker_lost"),
        (17, "waited", 2, "no_live_worker", 1),
    ]
    assert rows[-1] == (20, "succeeded", None)


def test_a_job_that_lost_two_workers_waits_while_another_such_job_runs(alice, submit, pool):
    """Two jobs run together on a worker that falls silent twice: then each may have caused it, and they take turns."""
    shift = Shift(pool, concurrency=2)
    first, second = submit(alice), submit(alice, now=after(0.001))
    for began in (0.001, 16.5):  # each time they run for a second, and a lease of 15 s runs out
        for attempt in shift.release(began):
            shift.beat(attempt, began + 0.5)
        for attempt in Attempt.objects.filter(job__pool=pool, state=Attempt.State.LIVE):
            lifecycle.lose(token=attempt.token, now=after(began + 15.5), attempts_max=3)
    [attempt] = shift.release(32)
    assert attempt.job_id == first.pk
    waiting = [row for row in shown(second, now=after(35)) if row[0] >= 32]
    assert waiting == [(32, "attempt_lost", 2, "worker_lost"), (32, "waited", None, "quarantine", 3.0)]
    shift.beat(attempt, 33)
    shift.end(attempt, 40)
    [attempt] = shift.release(40)
    shift.end(attempt, 42)
    assert [row for row in shown(second) if row[0] > 31 and row[1] in ("waited", "dispatched")] == [
        (32, "waited", 3, "quarantine", 8.0),
        (40, "dispatched", 3),
    ]
    assert not [row for row in shown(first) if "quarantine" in row]


def test_an_attempt_that_failed_is_shown_with_its_code_before_the_next(alice, submit, shift):
    job = submit(alice)
    [attempt] = shift.release(0)
    shift.beat(attempt, 1)
    shift.end(attempt, 2, outcome="failed", outputs=(), error_code="storage_unavailable", retryable=True)
    shift.release(3)
    assert [row[1:] for row in shown(job)[3:]] == [
        ("attempt_failed", 1, "storage_unavailable"),
        ("waited", 2, "free_worker", 1),
        ("dispatched", 2),
    ]


def test_a_job_that_nobody_took_waited_until_its_end(alice, submit, shift):
    job = submit(alice)
    lifecycle.cancel(job=job, now=after(4))
    assert shown(job) == [(0, "queued", None), (0, "waited", None, "free_worker", 4), (4, "canceled", None)]


def test_the_parts_of_a_wait_add_up_to_it(alice, bob, submit, shift):
    submit(bob)
    [running] = shift.release(0)
    for i in range(3):
        submit(bob, now=after(i / 10))
    job = submit(alice, now=after(0.5), priority=-5)
    for i in range(1, 5):
        shift.end(running, 4 * i)
        [running] = shift.release(4 * i)
        if running.job_id == job.pk:
            break
    assert sum(moment.seconds for moment in moments(job)[1] if moment.seconds) == pytest.approx(4 * i - 0.5)


def test_a_tenant_sees_no_other_tenant_and_no_worker_of_a_shared_pool(alice, bob, submit, shift):
    submit(bob)
    [busy] = shift.release(0)
    job = submit(alice)
    shift.end(busy, 4)
    [attempt] = shift.release(4)
    shift.beat(attempt, 5)
    job, found = moments(job)
    text = json.dumps(timeline_json(job, found), default=str)
    assert "w1" not in text
    assert bob.tenant.slug not in text
    assert any(moment.worker == "w1" for moment in found)  # as operators see it
    job.pool = Pool(tenant_id=job.tenant_id)
    assert any(row["worker"] == "w1" for row in timeline_json(job, found))
