"""What the control plane believes of a dedicated pool's worker about its attempts. Its tenant pays for GPU seconds."""

import random
from datetime import timedelta
from decimal import Decimal

import pytest

from billing.ledger.accounts import balances_by_kind
from billing.models import UsageRecord
from easel.catalog.pools import dedicated_pool_create
from easel.jobs import dispatch, lifecycle
from easel.jobs.lifecycle import Applied
from easel.jobs.models import Attempt, Job, State
from inference.contract import AttemptFinished, AttemptProgress, StoredOutput
from tests.conftest import NOW, worker_beat

WALL = 8.0  # seconds from the dispatch to the report


def after(seconds):
    return NOW + timedelta(seconds=seconds)


@pytest.fixture
def own(alice, version):
    """Alice's own pool, with one worker."""
    made = dedicated_pool_create(tenant=alice.tenant, version=version, gpu_class="h200", now=NOW)
    lifecycle.beat(pool=made, report=worker_beat(concurrency=99), now=NOW, lease_seconds=15)
    return made


@pytest.fixture
def attempt(alice, own, submit):
    return released(own, submit(alice))


def released(pool, job, now=NOW):
    (attempt,) = dispatch.release(pool=pool, now=now, lease_seconds=15)
    assert attempt.job_id == job.id
    return attempt


def finish(attempt, pool, *, now=None, **fields):
    given = {"outcome": "succeeded", "gpu_seconds": 5.0, "gpu_class": "cpu", **fields}
    if given["outcome"] == "succeeded":
        images = range(Job.objects.get(attempts=attempt).n)
        given["outputs"] = tuple(StoredOutput(index=i, seed=1, sha256="0" * 64, size_bytes=10) for i in images)
    report = AttemptFinished(attempt_token=str(attempt.token), worker="w1", **given)
    return lifecycle.finish(pool=pool, report=report, now=now or after(WALL), attempts_max=3)


def beat(pool, *progress, now=None, **fields):
    report = worker_beat(concurrency=99, attempts=progress, **fields)
    return lifecycle.beat(pool=pool, report=report, now=now or after(2), lease_seconds=15)


def progress_of(attempt, **fields):
    return AttemptProgress(attempt_token=str(attempt.token), **{"steps_done": 1, "steps_total": 8, **fields})


def job_of(attempt):
    return Job.objects.get(id=attempt.job_id)


def gpu_seconds(attempt):
    return UsageRecord.objects.get(job_id=attempt.job_id, meter="gpu_second").quantity


@pytest.mark.parametrize(
    ("reported", "taken"),
    [(0, 8), (1e-9, 8), (1.99, 8), (2, 2), (5, 5), (8, 8), (8.001, 8), (1000, 8), (1e7, 8)],
)
def test_gpu_seconds_are_as_reported_if_they_are_plausible_else_by_our_clock(alice, attempt, own, reported, taken):
    assert finish(attempt, own, gpu_seconds=reported) == Applied.SETTLED
    assert gpu_seconds(attempt) == taken
    # The price is that of the pool's class: 0.00125, and not the 0.0001 of "cpu"; and 0.0025 for the image.
    assert balances_by_kind(alice.tenant)["revenue"] == taken * 1250 + 500 + 500
    assert UsageRecord.objects.get(job_id=attempt.job_id, meter="gpu_second").dimensions["gpu_class"] == "h200"


def test_attempts_that_a_worker_holds_at_once_share_its_time_by_their_work(alice, own, submit):
    small, large = submit(alice), submit(alice, size="512x512", now=after(0.001))
    first, second = dispatch.release(pool=own, now=NOW, lease_seconds=15)
    assert (first.job_id, second.job_id) == (small.id, large.id)
    finish(first, own, gpu_seconds=1e6, now=after(5))  # 5 s of one part in five
    finish(second, own, gpu_seconds=1e6, now=after(10))  # 5 s of four parts in five, and 5 s alone
    assert (gpu_seconds(first), gpu_seconds(second)) == (Decimal(1), Decimal(9))


def test_a_batchs_job_has_the_time_that_no_other_job_has(alice, own, submit, submit_line):
    line = submit_line(alice)
    (slow,) = dispatch.release_batch(pool=own, now=NOW, lease_seconds=15)
    assert slow.job_id == line.id
    beat(own, now=after(3))
    quick = released(own, submit(alice, now=after(3)), now=after(3))
    finish(quick, own, gpu_seconds=1e6, now=after(7))
    beat(own, now=after(8))
    finish(slow, own, gpu_seconds=1e6, now=after(8))
    assert (gpu_seconds(quick), gpu_seconds(slow)) == (Decimal(4), Decimal(4))


@pytest.mark.parametrize("seed", range(2))
def test_whatever_is_reported_and_when_the_seconds_charged_sum_to_no_more_than_the_clocks(
    alice, own, submit, submit_line, seed
):
    chance, now, first_at = random.Random(seed), 0.0, None
    for _ in range(30):
        now += chance.choice([0.001, 0.01, 0.5, 3.0])
        live = list(Attempt.objects.filter(job__pool=own, state=Attempt.State.LIVE).order_by("token"))
        act = chance.choice(["submit", "submit", "line", "finish", "finish", "finish", "beat", "lose"])
        if act == "submit":
            submit(alice, size=chance.choice(["128x128", "256x256"]), n=chance.choice([1, 2]), now=after(now))
            beat(own, now=after(now))
            dispatch.release(pool=own, now=after(now), lease_seconds=15)
            first_at = now if first_at is None else first_at
        elif act == "line":
            submit_line(alice, now=after(now))
            beat(own, now=after(now))
            dispatch.release_batch(pool=own, now=after(now), lease_seconds=15)
            first_at = now if first_at is None else first_at
        elif act == "beat" and live:
            beat(own, progress_of(chance.choice(live), steps_done=10**6), now=after(now))
        elif act == "lose" and live:
            lifecycle.lose(token=chance.choice(live).token, now=after(now), attempts_max=3)
        elif live:
            outcome = chance.choice(["succeeded"] * 4 + ["failed", "canceled", "expired"])
            fields = {"outcome": outcome, "gpu_seconds": chance.choice([0.0, 0.1, 1.0, 1e7]), "retryable": True}
            ended = chance.choice(live)
            for _ in range(chance.choice([1, 2])):
                finish(ended, own, now=after(now), **fields)
    charged = UsageRecord.objects.filter(tenant=alice.tenant, meter="gpu_second").values_list("quantity", flat=True)
    assert charged
    assert max(charged) > 0
    assert sum(charged) <= Decimal(now - first_at) + Decimal("1e-6")
    # Failed, lost and repeated ones are within the clock too.
    assert sum(Attempt.objects.filter(job__pool=own).values_list("gpu_seconds", flat=True)) <= now - first_at + 1e-6


def test_a_lost_attempts_late_report_wastes_no_more_than_the_time_until_it_was_lost(attempt, own):
    beat(own, progress_of(attempt), now=NOW)
    assert lifecycle.lose(token=attempt.token, now=after(16), attempts_max=3)
    assert finish(attempt, own, gpu_seconds=1e7, now=after(1000)) == Applied.LATE
    attempt.refresh_from_db()
    assert (attempt.gpu_seconds, attempt.gpu_class) == (16, "h200")


@pytest.mark.parametrize("outcome", ["canceled", "expired"])
def test_a_job_is_not_canceled_or_expired_because_its_worker_says_so(attempt, own, outcome):
    assert finish(attempt, own, outcome=outcome) == Applied.REQUEUED
    attempt.refresh_from_db()
    assert (job_of(attempt).state, attempt.error_code) == (State.QUEUED, "worker_report_false")


def test_a_cancellation_that_was_asked_for_and_a_deadline_that_has_come_are_believed(alice, attempt, own, submit):
    lifecycle.cancel(job=job_of(attempt), now=after(1))
    finish(attempt, own, outcome="canceled")
    late = released(own, submit(alice))
    finish(late, own, outcome="expired", now=job_of(late).expires_at)
    assert [job_of(attempt).state, job_of(late).state] == [State.CANCELED, State.EXPIRED]


@pytest.mark.parametrize(
    ("reported", "recorded"),
    [
        ("prompt_too_long", "prompt_too_long"),
        ("out_of_memory", "out_of_memory"),
        ("", "internal_error"),
        ("worker_lost", "internal_error"),
        ("job_quarantined", "internal_error"),
        ("pay $5 to", "internal_error"),
    ],
)
def test_an_errors_code_is_one_that_a_worker_may_give(attempt, own, reported, recorded):
    finish(attempt, own, outcome="failed", error_code=reported, retryable=False)
    assert (job_of(attempt).state, job_of(attempt).error_code) == (State.FAILED, recorded)


def test_it_is_tried_no_more_often_than_any_other_whatever_its_worker_says_is_retryable(alice, own, submit):
    job = submit(alice)
    for _ in range(3):
        finish(released(own, job), own, outcome="failed", error_code="worker_stopped", retryable=True)
    job.refresh_from_db()
    assert (job.state, job.attempts.count()) == (State.FAILED, 3)


def test_a_batchs_job_survives_so_many_planned_stops_and_no_more(alice, own, submit_line, monkeypatch):
    monkeypatch.setattr(lifecycle, "STOPS_MAX", 2)
    job = submit_line(alice)
    for _ in range(5):
        (attempt,) = dispatch.release_batch(pool=own, now=NOW, lease_seconds=15)
        finish(attempt, own, outcome="failed", error_code="worker_stopped", retryable=True)
    job.refresh_from_db()
    assert (job.state, job.error_code) == (State.FAILED, "worker_stopped")


def test_progress_is_no_more_than_was_asked_for(alice, own, submit):
    attempt = released(own, submit(alice, n=2, partial_images=1))
    previews = ((0, 0), (1, 0), (0, 0), (0, 1), (2, 0), (9, 9))
    phases = {"adapters": 0.5, "prepared": 0.25, "first_step": 1.0, "steps": 1.5, "stored": 9.0}
    beat(own, progress_of(attempt, steps_done=10**6, previews=previews, phases=phases))
    attempt.refresh_from_db()
    assert attempt.steps_done == 2 * job_of(attempt).steps
    assert attempt.previews == [[0, 0], [1, 0]]
    assert attempt.phases == {"adapters": 0.5, "first_step": 1.0, "steps": 1.5}  # 2 s have passed, in their order
    finish(attempt, own, phases={"adapters": 0.5, "steps": 7.9, "stored": 8.1}, prompt_tokens=10**6)
    attempt.refresh_from_db()
    assert attempt.phases == {"adapters": 0.5, "steps": 7.9}
    assert attempt.prompt_tokens == len(b"a red circle") + 64


def test_steps_that_were_reported_are_not_taken_back_at_the_end(attempt, own):
    beat(own, progress_of(attempt, steps_done=5))
    lifecycle.cancel(job=job_of(attempt), now=after(3))
    finish(attempt, own, outcome="canceled", steps_done=0)
    attempt.refresh_from_db()
    assert attempt.steps_done == 5


def test_no_beat_holds_a_job_beyond_its_deadline_or_its_cancellation(alice, attempt, own, submit):
    expires_at = job_of(attempt).expires_at
    beat(own, progress_of(attempt), now=expires_at + timedelta(hours=5))
    attempt.refresh_from_db()
    assert attempt.lease_expires_at == expires_at + timedelta(seconds=15)
    other = released(own, submit(alice, now=after(1)), now=after(1))
    lifecycle.cancel(job=job_of(other), now=after(3))
    for second in range(3, 60, 8):
        beat(own, progress_of(other), now=after(second))
    other.refresh_from_db()
    assert other.lease_expires_at == after(3 + 15)
    assert lifecycle.lose(token=other.token, now=after(18), attempts_max=3)
    assert job_of(other).state == State.CANCELED


def test_a_beat_of_ended_and_foreign_attempts_changes_nothing(alice, bob, attempt, own, pool, submit):
    foreign = submit(bob)
    (theirs,) = dispatch.release(pool=pool, now=NOW, lease_seconds=15)
    finish(attempt, own)
    before = list(Attempt.objects.filter(job__in=[attempt.job_id, foreign.id]).order_by("pk").values())
    assert beat(own, progress_of(attempt), progress_of(theirs), now=after(9)) == []
    assert finish(theirs, own) == Applied.UNKNOWN
    assert list(Attempt.objects.filter(job__in=[attempt.job_id, foreign.id]).order_by("pk").values()) == before
