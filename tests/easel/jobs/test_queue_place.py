"""A job's place is the dispatcher's own order, and the estimate of its end is what a simulated pool would take."""

import uuid
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from easel.catalog.models import Worker
from easel.jobs import dispatch, lifecycle, queue_place
from easel.jobs.models import Attempt, Job, State
from easel.jobs.queue_place import Load, simulate
from inference.contract import AttemptProgress
from tenants.models import Tenant
from tests.conftest import NOW, worker_beat


def release(pool, now=NOW):
    return dispatch.release(pool=pool, now=now, lease_seconds=3600)


def place(job, now=NOW):
    return queue_place.queue_place(Job.objects.select_related("pool").get(pk=job.pk), now=now)


def end_everything(pool):
    live = Attempt.objects.filter(job__pool=pool, state=Attempt.State.LIVE)
    live.update(state=Attempt.State.CANCELED, finished_at=NOW)
    Job.objects.filter(pool=pool, finished_at=None).update(state=State.CANCELED, finished_at=NOW)


@pytest.fixture
def customers(customer):
    return [customer() for _ in range(4)]


@given(
    jobs=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 20), st.integers(-2, 2)), max_size=14),
    weights=st.lists(st.integers(1, 3), min_size=4, max_size=4),
    caps=st.lists(st.none() | st.integers(1, 3), min_size=4, max_size=4),
    concurrency=st.integers(1, 20),
)
def test_the_dispatcher_takes_the_jobs_in_the_order_of_their_positions(
    pool, submit, customers, jobs, weights, caps, concurrency
):
    """Virtual times stay from one example to the next, so that tenants come with all kinds of them."""
    end_everything(pool)
    Worker.objects.filter(pool=pool).update(concurrency=concurrency)
    for customer, weight, cap in zip(customers, weights, caps, strict=True):
        Tenant.objects.filter(pk=customer.tenant.pk).update(fair_share_weight=weight, running_jobs_max=cap)
    waiting = [submit(customers[owner], steps=steps, priority=priority) for owner, steps, priority in jobs]
    places = {job.pk: place(job) for job in waiting}
    taken = [places[attempt.job_id] for attempt in release(pool)]
    assert [one["position"] for one in taken] == list(range(1, len(taken) + 1))
    assert all(one["waits_for"] != "concurrency_limit" for one in taken)


def test_a_place_says_how_many_jobs_of_the_same_account_are_ahead_and_what_the_job_waits_for(alice, bob, pool, submit):
    Worker.objects.filter(pool=pool).update(concurrency=1)
    first, second, other = submit(alice), submit(alice, now=NOW + timedelta(seconds=1)), submit(bob)
    shown = [place(job) for job in (first, second, other)]
    ahead = {one["position"]: (one["ahead_in_your_account"], one["waits_for"]) for one in shown}
    # Whichever account's turn is first, the second job of alice's is last.
    assert ahead == {1: (0, "free_worker"), 2: (0, "other_tenants"), 3: (1, "other_tenants")}
    assert shown[1]["position"] == 3


def test_the_next_jobs_of_one_account_wait_for_its_own_jobs(alice, pool, submit):
    submit(alice)
    assert place(submit(alice, priority=-1)) == {
        "position": 2,
        "position_is_exact": True,
        "ahead_in_your_account": 1,
        "waits_for": "own_jobs",
        "eta_seconds": None,
    }


def test_a_job_that_its_accounts_cap_holds_back_waits_for_it_and_keeps_its_position(alice, bob, pool, submit):
    Tenant.objects.filter(pk=alice.tenant.pk).update(running_jobs_max=1)
    submit(alice)
    release(pool)
    held = submit(alice)
    assert (place(held)["position"], place(held)["waits_for"]) == (1, "concurrency_limit")
    other = submit(bob)
    assert (place(other)["position"], place(other)["waits_for"]) == (1, "free_worker")


def test_a_job_in_a_pool_without_a_live_worker_waits_for_one(alice, pool, submit):
    job = submit(alice)
    assert place(job, NOW + timedelta(seconds=11))["waits_for"] == "no_live_worker"


def test_a_job_behind_as_many_as_are_read_is_only_known_to_be_behind_them(alice, pool, submit, monkeypatch):
    monkeypatch.setattr(queue_place, "POSITION_MAX", 3)
    *_, last = (submit(alice, now=NOW + timedelta(milliseconds=i)) for i in range(5))
    assert (place(last)["position"], place(last)["position_is_exact"]) == (4, False)


def test_a_job_that_has_ended_has_no_place(alice, pool, submit):
    assert place(lifecycle.cancel(job=submit(alice), now=NOW)) is None


def quarantine(jobs):
    Job.objects.filter(pk__in=[job.pk for job in jobs]).update(quarantined=True)


def test_of_two_quarantined_jobs_one_has_a_place_and_the_other_waits_for_it(alice, pool, submit):
    first, second, plain = (submit(alice, now=NOW + timedelta(milliseconds=i)) for i in range(3))
    quarantine([first, second])
    assert (place(first)["position"], place(first)["waits_for"]) == (1, "free_worker")
    assert place(plain)["position"] == 2  # the quarantine holds nothing else back
    held = {"position": None, "ahead_in_your_account": None, "waits_for": "quarantine", "eta_seconds": None}
    assert place(second) == {**held, "position_is_exact": True}
    assert {attempt.job_id for attempt in release(pool)} == {first.pk, plain.pk}
    assert place(second) == {**held, "position_is_exact": True}
    assert place(first)["waits_for"] is None  # it runs


# --- jobs of batches


def test_jobs_of_batches_are_numbered_among_themselves_and_wait_for_an_idle_pool(
    alice, bob, pool, submit, submit_line, end
):
    measured(alice, pool, submit, end, 2.0)
    lines = [submit_line(alice, now=NOW + timedelta(milliseconds=i)) for i in range(3)]
    urgent = [submit(bob) for _ in range(2)]
    shown = [place(line) for line in lines]
    assert [(one["position"], one["ahead_in_your_account"]) for one in shown] == [(1, 0), (2, 1), (3, 2)]
    assert {(one["waits_for"], one["eta_seconds"]) for one in shown} == {("idle_pool", None)}
    assert sorted(place(job)["position"] for job in urgent) == [1, 2]
    assert sorted(place(job)["eta_seconds"] for job in urgent) == [2.0, 4.0]  # one after the other


def test_a_job_of_a_batch_in_a_pool_without_a_live_worker_waits_for_one(alice, pool, submit_line):
    assert place(submit_line(alice), NOW + timedelta(seconds=11))["waits_for"] == "no_live_worker"


def test_jobs_of_batches_have_no_estimate_and_are_in_nobodys(alice, bob, pool, submit, submit_line, end):
    measured(alice, pool, submit, end, 2.0)
    Worker.objects.filter(pool=pool).update(concurrency=2)
    lines = [submit_line(alice, now=NOW + timedelta(milliseconds=i)) for i in range(3)]
    running = dispatch.release_batch(pool=pool, now=NOW, lease_seconds=3600)
    assert [attempt.job_id for attempt in running] == [line.pk for line in lines[:2]]
    # They go on when the pool is idle, which nobody knows; and a job of two seconds takes these two beside them.
    assert [(place(line)["position"], place(line)["eta_seconds"]) for line in lines] == [(None, None)] * 2 + [(1, None)]
    assert place(submit(bob))["eta_seconds"] == 2.0


def test_nothing_is_read_for_a_running_job_of_a_batch(alice, pool, submit_line):
    submit_line(alice)
    [attempt] = dispatch.release_batch(pool=pool, now=NOW, lease_seconds=3600)
    line = Job.objects.get(pk=attempt.job_id)
    with CaptureQueriesContext(connection) as queries:
        found = queue_place.queue_place(line, now=NOW)
    assert list(queries) == []
    assert (found["position"], found["waits_for"], found["eta_seconds"]) == (None, None, None)


# --- the estimate


def measured(alice, pool, submit, end, seconds):
    """The pool has measured how long a job of the default size and steps takes."""
    end(submit(alice), gpu_seconds=seconds)
    Worker.objects.filter(pool=pool).update(concurrency=1)


def test_the_estimate_falls_as_work_is_done(alice, pool, submit, end):
    measured(alice, pool, submit, end, 2.0)
    running, _, waiting = (submit(alice, now=NOW + timedelta(milliseconds=i)) for i in range(3))
    assert place(waiting)["eta_seconds"] == 6.0
    [attempt] = release(pool)
    for steps_done, left in ((4, 1.0), (7, 0.2)):  # of eight steps in two seconds; in tenths
        progress = AttemptProgress(attempt_token=str(attempt.token), steps_done=steps_done, steps_total=8)
        beat = worker_beat(concurrency=1, attempts=(progress,))
        lifecycle.beat(pool=pool, report=beat, now=NOW, lease_seconds=3600)
        assert place(running)["eta_seconds"] == pytest.approx(left, abs=0.06)
        assert place(waiting)["eta_seconds"] == pytest.approx(left + 4.0, abs=0.06)
    assert place(running)["position"] is None


def test_more_live_workers_shorten_the_estimate_and_silent_ones_do_not(alice, pool, submit, end):
    measured(alice, pool, submit, end, 2.0)
    *_, last = (submit(alice, now=NOW + timedelta(milliseconds=i)) for i in range(4))
    lifecycle.beat(pool=pool, report=worker_beat(worker="w2", concurrency=1), now=NOW, lease_seconds=15)
    assert place(last)["eta_seconds"] == 4.0
    Worker.objects.filter(pool=pool, name="w2").update(beat_at=NOW - timedelta(seconds=11))
    assert place(last)["eta_seconds"] == 8.0


def test_nothing_is_estimated_where_nothing_is_known(alice, pool, submit, end):
    job = submit(alice)
    assert place(job)["eta_seconds"] is None  # nothing was measured
    end(job)
    job = submit(alice)
    assert place(job)["eta_seconds"] is not None
    assert place(job, NOW + timedelta(seconds=11))["eta_seconds"] is None  # no worker is live


def stepped(running, waiting, workers, concurrency, caps, wanted, dt=0.01):
    """The same pool, moved on in small steps of time."""
    active = {load.job_id: [load.tenant_id, load.seconds] for load in running}
    queued, now, room = list(waiting), 0.0, dict(caps)
    while True:
        for load in list(queued):
            if len(active) < concurrency and room.get(load.tenant_id, 1) > 0:
                active[load.job_id] = [load.tenant_id, load.seconds]
                queued.remove(load)
                if load.tenant_id in room:
                    room[load.tenant_id] -= 1
        share = min(1.0, workers / len(active)) * dt
        now += dt
        for job_id, job in list(active.items()):
            job[1] -= share
            if job[1] <= 1e-9:
                if job_id == wanted:
                    return now
                del active[job_id]
                if job[0] in room:
                    room[job[0]] += 1


LOADS = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 30)), max_size=5)


@given(LOADS, LOADS.filter(bool), st.integers(1, 3), st.integers(1, 4), st.none() | st.integers(1, 2))
def test_the_estimate_is_what_a_simulated_pool_takes(running, waiting, workers, concurrency, cap):
    tenants = [uuid.UUID(int=0), uuid.UUID(int=1)]
    loads = [Load(uuid.uuid4(), tenants[owner], tenths / 10) for owner, tenths in running + waiting]
    running, waiting = loads[: len(running)], loads[len(running) :]
    caps = {} if cap is None else {tenants[0]: cap}
    expected = stepped(running, waiting, workers, concurrency, caps, loads[-1].job_id)
    found = simulate(
        running=running,
        waiting=waiting,
        workers=workers,
        concurrency=concurrency,
        headroom=caps,
        job_id=loads[-1].job_id,
    )
    assert found == pytest.approx(expected, abs=0.01 * 3 * (len(loads) + 1))
