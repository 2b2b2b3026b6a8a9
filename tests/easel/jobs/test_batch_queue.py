"""Jobs of batches fill what is idle, and no other job waits for one."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.ledger.accounts import balances_by_kind
from core.pipeline import run_query
from easel.catalog.models import Pool, Worker
from easel.jobs import dispatch, lifecycle, queue, transport
from easel.jobs.models import Attempt, BatchShare, FairShare, Job, State
from easel.processes import dispatcher
from inference.contract import AttemptFinished
from tenants.models import Tenant
from tenants.quotas import ConcurrencyExceeded, quota_set
from tests.conftest import NOW

UNTIL = NOW + timedelta(days=1)


def release(pool, now=NOW):
    return dispatch.release(pool=pool, now=now, lease_seconds=15)


def release_batch(pool, now=NOW):
    return dispatch.release_batch(pool=pool, now=now, lease_seconds=15)


def owners(attempts):
    return [Job.objects.get(pk=attempt.job_id).tenant for attempt in attempts]


def end_all(pool):
    """Every attempt is lost before a worker began it, and its job is canceled."""
    for attempt in Attempt.objects.filter(job__pool=pool, state=Attempt.State.LIVE):
        Attempt.objects.filter(pk=attempt.pk).update(lease_expires_at=NOW)
        lifecycle.cancel(job=attempt.job, now=NOW)
        lifecycle.lose(token=attempt.token, now=NOW, attempts_max=3)
    for job in Job.objects.filter(pool=pool, state=State.QUEUED):
        lifecycle.cancel(job=job, now=NOW)


def test_a_batch_fills_an_idle_pool(alice, pool, submit_line):
    for _ in range(6):
        submit_line(alice)
    assert release(pool) == []
    assert len(release_batch(pool)) == 4  # of four places
    assert release_batch(pool) == []


def test_a_batch_fills_the_places_that_others_leave(alice, bob, pool, submit, submit_line):
    for _ in range(6):
        submit_line(alice)
    for _ in range(3):
        submit(bob)
    assert (len(release(pool)), len(release_batch(pool))) == (3, 1)


@pytest.mark.parametrize("places", [1, 4])
def test_other_jobs_have_every_place_though_a_batch_fills_the_pool(alice, bob, pool, submit, submit_line, places):
    Worker.objects.filter(pool=pool).update(concurrency=places)
    for _ in range(places):
        submit_line(alice)
    assert len(release_batch(pool)) == places
    for _ in range(places + 1):
        submit(bob)
    assert owners(release(pool)) == [bob.tenant] * places
    assert (release(pool), release_batch(pool)) == ([], [])


def test_lines_in_quarantine_wait_for_other_jobs_there_and_not_the_reverse(alice, bob, pool, submit, submit_line):
    def quarantine(job):
        Job.objects.filter(pk=job.pk).update(quarantined=True)

    quarantine(submit_line(alice))
    assert len(release_batch(pool)) == 1
    quarantine(submit(bob))
    quarantine(submit_line(alice))
    assert owners(release(pool)) == [bob.tenant]
    assert release_batch(pool) == []


def test_a_batch_waits_while_any_tenants_job_waits(alice, bob, pool, submit, submit_line):
    submit_line(alice)
    submit(bob)
    assert release_batch(pool) == []
    release(pool)
    assert owners(release_batch(pool)) == [alice.tenant]


def test_a_job_that_waits_for_its_own_tenants_cap_keeps_no_batch_waiting(alice, bob, pool, submit, submit_line):
    Tenant.objects.filter(pk=bob.tenant.pk).update(running_jobs_max=1)
    for _ in range(2):
        submit(bob)
    submit_line(alice)
    assert (len(release(pool)), owners(release_batch(pool))) == (1, [alice.tenant])


def test_a_tenants_batch_takes_no_place_from_its_other_jobs(alice, pool, submit, submit_line):
    Tenant.objects.filter(pk=alice.tenant.pk).update(running_jobs_max=2)
    for _ in range(3):
        submit_line(alice)
    assert len(release_batch(pool)) == 2
    Worker.objects.filter(pool=pool).update(concurrency=8)
    for _ in range(3):
        submit(alice)
    assert len(release(pool)) == 2
    assert release_batch(pool) == []  # its cap is reached


def test_batches_of_tenants_take_turns(alice, bob, pool, submit_line):
    for _ in range(4):
        submit_line(alice)
    for _ in range(2):
        submit_line(bob, now=NOW + timedelta(seconds=1))
    assert sorted(tenant.slug for tenant in owners(release_batch(pool))) == sorted(
        [alice.tenant.slug] * 2 + [bob.tenant.slug] * 2
    )


def test_what_a_batch_took_costs_its_tenant_no_turn(alice, bob, pool, submit_line):
    submit_line(alice)
    release_batch(pool)
    assert BatchShare.objects.get(pool=pool, tenant=alice.tenant).virtual_time > 0
    assert not FairShare.objects.filter(pool=pool, tenant=alice.tenant).exists()


def test_a_batchs_work_is_measured_into_its_own_share(alice, pool, submit_line, end):
    job = submit_line(alice)
    release_batch(pool)
    assert end(job, gpu_seconds=2.5).state == State.SUCCEEDED
    share = BatchShare.objects.get(pool=pool, tenant=alice.tenant)
    assert (share.virtual_time, share.measured_seconds) == (2.5, 2.5)
    assert queue.pool_load(pool=pool, now=NOW).gpu_seconds_per_pixel_step == 2.5 / job.work


def test_batches_count_towards_no_limit_of_waiting_or_concurrent_jobs(alice, submit, submit_line):
    quota_set(tenant=alice.tenant, api_key=None, limits={"concurrent_jobs_max": 1, "queued_jobs_max": 1}, now=NOW)
    for _ in range(3):
        submit_line(alice)
    submit(alice)
    with pytest.raises(ConcurrencyExceeded):
        submit(alice)
    submit_line(alice)


@pytest.mark.parametrize(("error_code", "state"), [("worker_stopped", State.QUEUED), ("out_of_memory", State.FAILED)])
def test_planned_stops_of_workers_use_up_no_attempts_of_a_line(alice, pool, submit_line, error_code, state):
    line = submit_line(alice)
    for _ in range(3):
        [attempt] = release_batch(pool)
        report = AttemptFinished(
            attempt_token=str(attempt.token),
            worker="w1",
            gpu_class="cpu",
            outcome="failed",
            error_code=error_code,
            retryable=True,
        )
        lifecycle.finish(pool=pool, report=report, now=NOW, attempts_max=3)
    assert Job.objects.get(pk=line.pk).state == state


def test_the_message_to_a_worker_says_that_the_images_of_a_line_yield(alice, pool, submit, submit_line):
    submit(alice)
    submit_line(alice)
    attempts = [*release(pool), *release_batch(pool)]
    jobs = {job.id: job for job in run_query(transport._released(attempts))}
    assert [transport._task(jobs[attempt.job_id], attempt).yields for attempt in attempts] == [False, True]


def test_a_line_expires_with_its_batch(alice, submit_line):
    assert submit_line(alice).expires_at == UNTIL


def test_the_hold_and_the_charge_of_a_batch_have_its_discount(customer, pool, submit_line, end, half_price):
    wendy = customer(name="wendy", currency=half_price)
    job = submit_line(wendy)
    # Of 0.25 units x 8 steps x 4 s at 0.0001, 0.25 units at 0.002 and a request at 0.0005, half.
    assert balances_by_kind(wendy.tenant)["held"] == 400 + 250 + 250
    release_batch(pool)
    end(job, gpu_seconds=3.0)
    assert balances_by_kind(wendy.tenant)["revenue"] == 150 + 250 + 250
    assert balances_by_kind(wendy.tenant)["held"] == 0


step = st.one_of(
    st.tuples(st.just("other"), st.integers(0, 2), st.integers(1, 3)),
    st.tuples(st.just("line"), st.integers(0, 2), st.integers(1, 5)),
    st.tuples(st.just("turn"), st.just(0), st.just(0)),
    st.tuples(st.just("end"), st.integers(0, 5), st.just(0)),
)


@pytest.fixture
def customers(customer):
    return [customer(credit="1000") for _ in range(3)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(step, max_size=20), concurrency=st.integers(1, 5))
def test_no_batch_is_dispatched_while_another_job_waits(
    pool, submit, submit_line, customers, monkeypatch, steps, concurrency
):
    """By the dispatcher's own turns, with jobs of three tenants that come and end in any order."""
    monkeypatch.setattr(dispatcher, "datetime", FrozenClock)
    monkeypatch.setattr(dispatcher.transport, "send", lambda attempts: None)
    # A turn goes through all pools: here through one instead of the hundreds that other tests left.
    monkeypatch.setattr(dispatcher, "Pool", SimpleNamespace(objects=Pool.objects.filter(pk=pool.pk)))
    end_all(pool)
    Worker.objects.filter(pool=pool).update(concurrency=concurrency)
    of_pool = Job.objects.filter(pool=pool)
    for kind, which, count in steps:
        if kind == "end":
            live = list(Attempt.objects.filter(job__pool=pool, state=Attempt.State.LIVE).order_by("token"))
            for attempt in live[which : which + 1]:
                Attempt.objects.filter(pk=attempt.pk).update(lease_expires_at=NOW)
                lifecycle.cancel(job=attempt.job, now=NOW)
                lifecycle.lose(token=attempt.token, now=NOW, attempts_max=3)
        elif kind == "turn":
            sent = {attempt.job_id for attempt in dispatcher.turn()}
            lines = of_pool.filter(pk__in=sent, in_batch=True).count()
            waits = of_pool.filter(state=State.QUEUED, in_batch=False).exists()
            unfinished = of_pool.filter(state=State.DISPATCHED)
            others = unfinished.filter(in_batch=False).count()
            assert not (lines and waits)
            assert not lines or unfinished.count() <= concurrency
            assert others <= concurrency
            assert not waits or others == concurrency  # whatever batches run
            # And nothing idles: beside a free place no line waits.
            assert unfinished.count() >= concurrency or not of_pool.filter(state=State.QUEUED).exists()
        else:
            for _ in range(count):
                (submit if kind == "other" else submit_line)(customers[which])


class FrozenClock:
    @staticmethod
    def now(zone):
        return NOW
