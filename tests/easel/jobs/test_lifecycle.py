import uuid
from datetime import timedelta
from decimal import Decimal

import pytest

from billing.ledger.accounts import balances_by_kind
from billing.models import Charge, UsageRecord
from billing.pricing.price_books import price_book_seed
from easel.jobs import dispatch, lifecycle
from easel.jobs.lifecycle import Applied
from easel.jobs.models import Attempt, Job, State
from easel.jobs.queries import wasted_gpu_seconds
from easel.seed import PRICES
from inference.contract import AttemptFinished, AttemptProgress, StoredOutput, WorkerBeat
from tests.conftest import NOW

SOON = NOW + timedelta(seconds=5)
LEASE_OVER = NOW + timedelta(seconds=16)


@pytest.fixture
def attempt(alice, pool, submit):
    """Alice's job in a worker's hands."""
    submit(alice)
    (released,) = dispatch.release(pool=pool, now=NOW, lease_seconds=15)
    return released


def report(attempt, **fields):
    given = {"outcome": "succeeded", "gpu_seconds": 1.5, **fields}
    if given["outcome"] == "succeeded":
        given.setdefault("outputs", (StoredOutput(index=0, seed=1, sha256="0" * 64, size_bytes=10),))
    return AttemptFinished(attempt_token=str(attempt.token), worker="w1", gpu_class="cpu", **given)


def finish(attempt, pool, **fields):
    return lifecycle.finish(pool=pool, report=report(attempt, **fields), now=SOON, attempts_max=3)


def beat(attempt, pool, now=SOON, steps_done=3):
    progress = AttemptProgress(attempt_token=str(attempt.token), steps_done=steps_done, steps_total=8)
    message = WorkerBeat(
        worker="w1",
        gpu_class="cpu",
        concurrency=4,
        model_version="m",
        started_at=NOW.timestamp(),  # a worker that began in 1970 would be recorded for each day since
        busy_seconds=1,
        attributed_seconds=1,
        load_seconds=1,
        attempts=(progress,),
    )
    return lifecycle.beat(pool=pool, report=message, now=now, lease_seconds=15)


def lose(attempt, now=LEASE_OVER):
    return lifecycle.lose(token=attempt.token, now=now, attempts_max=3)


def job_of(attempt):
    return Job.objects.get(id=attempt.job_id)


def test_a_success_is_charged_from_what_was_measured(alice, attempt, pool):
    assert finish(attempt, pool) == Applied.SETTLED
    # 1.5 GPU seconds at 0.0001, a quarter of a unit at 0.002, one request at 0.0005
    assert balances_by_kind(alice.tenant)["revenue"] == 150 + 500 + 500
    assert balances_by_kind(alice.tenant)["held"] == 0
    assert job_of(attempt).state == State.SUCCEEDED


def test_its_charges_sum_to_what_the_ledger_earned(alice, attempt, pool):
    finish(attempt, pool)
    charges = Charge.objects.filter(usage_record__job_id=attempt.job_id)
    assert sum(charge.amount_micros for charge in charges) == balances_by_kind(alice.tenant)["revenue"]


def test_nobody_pays_more_than_was_held(alice, attempt, pool):
    finish(attempt, pool, gpu_seconds=1000.0)
    # The hold: 8 GPU seconds at 0.0001, and the rest as charged.
    assert balances_by_kind(alice.tenant)["revenue"] == 800 + 500 + 500
    assert Charge.objects.get(usage_record__job_id=attempt.job_id, kind="waiver").amount_micros == -(100_000 - 800)


def test_the_same_report_twice_is_applied_once(alice, attempt, pool):
    finish(attempt, pool)
    before = balances_by_kind(alice.tenant)
    assert finish(attempt, pool) == Applied.LATE
    assert balances_by_kind(alice.tenant) == before
    assert UsageRecord.objects.filter(job_id=attempt.job_id).count() == 3


def test_usage_remembers_what_reports_group_by(attempt, pool, version):
    finish(attempt, pool)
    record = UsageRecord.objects.get(job_id=attempt.job_id, meter="gpu_second")
    assert record.quantity == Decimal("1.5")
    assert record.dimensions["model"] == version.model.name
    assert record.dimensions["resolution"] == "256x256"


def test_a_failure_for_good_is_free(alice, attempt, pool):
    finish(attempt, pool, outcome="failed", error_code="prompt_too_long", error_message="512 tokens at most")
    job = job_of(attempt)
    assert (job.state, job.error_code) == (State.FAILED, "prompt_too_long")
    assert balances_by_kind(alice.tenant)["credit"] == 10_000_000


def test_a_failure_that_may_pass_goes_back_to_the_queue_with_its_hold(alice, attempt, pool):
    assert finish(attempt, pool, outcome="failed", error_code="storage_away", retryable=True) == Applied.REQUEUED
    assert job_of(attempt).state == State.QUEUED
    assert balances_by_kind(alice.tenant)["held"] > 0


def test_after_three_attempts_it_fails_with_the_last_cause(alice, pool, submit):
    submit(alice)
    for _ in range(3):
        (attempt,) = dispatch.release(pool=pool, now=NOW, lease_seconds=15)
        finish(attempt, pool, outcome="failed", error_code="out_of_memory", retryable=True)
    assert (job_of(attempt).state, job_of(attempt).error_code) == (State.FAILED, "out_of_memory")
    assert balances_by_kind(alice.tenant)["held"] == 0


def test_a_beat_starts_the_job_and_extends_the_lease(attempt, pool):
    beat(attempt, pool)
    attempt.refresh_from_db()
    assert (attempt.lease_expires_at, attempt.steps_done) == (SOON + timedelta(seconds=15), 3)
    assert job_of(attempt).state == State.RUNNING


def test_a_lease_that_was_extended_is_not_lost(attempt, pool):
    beat(attempt, pool)
    assert not lose(attempt)


def test_a_lost_lease_returns_the_job_with_the_next_attempt_number(attempt, pool):
    beat(attempt, pool, now=NOW)
    assert lose(attempt)
    (second,) = dispatch.release(pool=pool, now=NOW, lease_seconds=15)
    assert (second.job_id, second.number) == (attempt.job_id, 2)


def test_messages_lost_on_the_way_do_not_count_as_attempts(alice, pool, submit):
    submit(alice)
    for _ in range(5):
        (attempt,) = dispatch.release(pool=pool, now=NOW, lease_seconds=15)
        lose(attempt)
    assert job_of(attempt).state == State.QUEUED


def test_the_report_of_a_lost_attempt_is_wasted_time_and_not_billed(alice, attempt, pool):
    lose(attempt)
    assert finish(attempt, pool) == Applied.LATE
    attempt.refresh_from_db()
    assert (attempt.state, attempt.gpu_seconds) == (Attempt.State.LOST, Decimal("1.5"))
    assert job_of(attempt).state == State.QUEUED
    assert balances_by_kind(alice.tenant)["revenue"] == 0


def test_wasted_time_is_that_of_the_worker_that_wasted_it_and_counts_once(attempt, pool):
    before = wasted_gpu_seconds()
    lose(attempt)
    finish(attempt, pool)
    finish(attempt, pool, gpu_seconds=9.0)
    attempt.refresh_from_db()
    assert (attempt.worker, attempt.gpu_class) == ("w1", "cpu")
    assert wasted_gpu_seconds() - before == pytest.approx(1.5)


@pytest.mark.parametrize("indexes", [(), (1,), (0, 0), (0, 1)])
def test_a_success_without_just_its_images_is_none(attempt, pool, indexes):
    outputs = tuple(StoredOutput(index=index, seed=1, sha256="0" * 64, size_bytes=10) for index in indexes)
    with pytest.raises(ValueError, match="has 1 images"):
        finish(attempt, pool, outputs=outputs)
    attempt.refresh_from_db()
    assert (attempt.state, job_of(attempt).state) == (Attempt.State.LIVE, State.DISPATCHED)


def test_a_second_report_that_says_otherwise_changes_nothing(alice, attempt, pool):
    finish(attempt, pool)
    before = balances_by_kind(alice.tenant)
    assert finish(attempt, pool, outcome="failed", error_code="worker_error", retryable=True) == Applied.LATE
    assert finish(attempt, pool, gpu_seconds=100.0) == Applied.LATE
    assert (job_of(attempt).state, balances_by_kind(alice.tenant)) == (State.SUCCEEDED, before)


def test_an_old_beat_takes_nothing_back(attempt, pool):
    beat(attempt, pool, now=SOON, steps_done=5)
    beat(attempt, pool, now=NOW, steps_done=3)
    attempt.refresh_from_db()
    assert (attempt.lease_expires_at, attempt.steps_done) == (SOON + timedelta(seconds=15), 5)


def test_a_worker_that_comes_back_is_notified_that_its_lease_was_lost(attempt, pool):
    assert beat(attempt, pool) == []
    lose(attempt, now=SOON + timedelta(seconds=15))
    assert beat(attempt, pool) == [attempt.token]


def test_a_worker_is_notified_of_a_cancellation_until_it_stops(attempt, pool):
    lifecycle.cancel(job=job_of(attempt), now=SOON)
    assert beat(attempt, pool) == [attempt.token]
    finish(attempt, pool, outcome="canceled")
    assert beat(attempt, pool) == []


def test_only_one_of_two_attempts_is_charged(alice, attempt, pool):
    lose(attempt)
    (second,) = dispatch.release(pool=pool, now=NOW, lease_seconds=15)
    assert finish(second, pool) == Applied.SETTLED
    assert finish(attempt, pool) == Applied.LATE
    assert UsageRecord.objects.filter(job_id=attempt.job_id, meter="request").count() == 1


def test_a_report_of_nobodys_attempt_is_dropped(attempt, pool):
    attempt.token = uuid.uuid4()
    assert finish(attempt, pool) == Applied.UNKNOWN


def test_a_worker_of_another_pool_has_no_say(attempt, pool):
    from easel.catalog.models import Pool

    slug = f"pool-{uuid.uuid4().hex[:12]}"
    foreign = Pool.objects.create(slug=slug, namespace=slug, gpu_class="cpu", created_at=NOW)
    assert finish(attempt, foreign) == Applied.UNKNOWN
    beat(attempt, foreign)
    assert job_of(attempt).state == State.DISPATCHED


def test_a_waiting_job_is_canceled_at_once_and_free(alice, submit):
    job = lifecycle.cancel(job=submit(alice), now=SOON)
    assert job.state == State.CANCELED
    assert balances_by_kind(alice.tenant)["credit"] == 10_000_000


def test_a_running_job_is_canceled_when_its_worker_stops(alice, attempt, pool):
    assert lifecycle.cancel(job=job_of(attempt), now=SOON).state == State.DISPATCHED
    finish(attempt, pool, outcome="canceled")
    assert job_of(attempt).state == State.CANCELED
    assert balances_by_kind(alice.tenant)["credit"] == 10_000_000


def test_a_cancellation_that_comes_too_late_changes_nothing(alice, attempt, pool):
    lifecycle.cancel(job=job_of(attempt), now=SOON)
    finish(attempt, pool)
    assert job_of(attempt).state == State.SUCCEEDED
    assert lifecycle.cancel(job=job_of(attempt), now=SOON).state == State.SUCCEEDED


def test_a_canceled_job_whose_worker_was_lost_is_not_tried_again(attempt):
    lifecycle.cancel(job=job_of(attempt), now=SOON)
    lose(attempt)
    assert job_of(attempt).state == State.CANCELED


def test_a_job_that_nobody_took_expires_uncharged(alice, submit):
    job = submit(alice)
    assert not lifecycle.expire(job_id=job.id, now=SOON)
    assert lifecycle.expire(job_id=job.id, now=job.expires_at)
    assert balances_by_kind(alice.tenant)["credit"] == 10_000_000


def test_a_running_job_whose_time_is_up_expires_uncharged_and_says_how_far_it_was(alice, attempt, pool):
    finish(attempt, pool, outcome="expired", steps_done=3)
    assert (job_of(attempt).state, job_of(attempt).error_code) == (State.EXPIRED, "job_expired")
    attempt.refresh_from_db()
    assert (attempt.state, attempt.steps_done) == ("expired", 3)
    assert balances_by_kind(alice.tenant)["credit"] == 10_000_000


@pytest.fixture
def carol(customer):
    """A tenant whose price book charges for the steps that a job took before it was stopped."""
    currency = "".join(chr(65 + int(digit, 16)) for digit in uuid.uuid4().hex[:3])
    price_book_seed(currency=currency, version=1, rates=PRICES, effective_at=NOW, bills_stopped_work=True, now=NOW)
    return customer(name="carol", currency=currency)


@pytest.mark.parametrize("outcome", ["canceled", "expired"])
def test_a_stopped_job_pays_for_its_steps_where_the_price_book_says_so(carol, pool, submit, outcome):
    job = submit(carol)
    (attempt,) = dispatch.release(pool=pool, now=NOW, lease_seconds=15)
    finish(attempt, pool, outcome=outcome, steps_done=job.steps // 4, gpu_seconds=0.5)
    # Half a GPU second at 0.0001 and a quarter of a quarter of a unit at 0.002; no request.
    assert balances_by_kind(carol.tenant)["revenue"] == 50 + 125
    assert balances_by_kind(carol.tenant)["held"] == 0
    assert job_of(attempt).state == outcome
    assert finish(attempt, pool, outcome=outcome, steps_done=8) == Applied.LATE


def test_a_job_stopped_before_its_first_step_is_free(carol, pool, submit):
    submit(carol)
    (attempt,) = dispatch.release(pool=pool, now=NOW, lease_seconds=15)
    finish(attempt, pool, outcome="canceled", gpu_seconds=0.5)
    assert balances_by_kind(carol.tenant)["credit"] == 10_000_000


def test_a_job_in_a_workers_hands_is_left_to_it_to_expire(attempt):
    assert not lifecycle.expire(job_id=attempt.job_id, now=NOW + timedelta(days=1))
