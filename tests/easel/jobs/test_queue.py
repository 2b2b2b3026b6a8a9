import signal
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connections
from hypothesis import given
from hypothesis import strategies as st

from easel.catalog.models import Worker
from easel.jobs import dispatch, lifecycle
from easel.jobs.fair_queueing import Contender, Waiting, choose
from easel.jobs.models import Attempt, FairShare, Job, State
from tenants.models import Tenant
from tests.conftest import NOW


def contender(name, *, jobs, virtual_time=0.0, weight=1, work=1):
    return Contender(
        tenant_id=uuid.UUID(int=ord(name)),
        virtual_time=virtual_time,
        weight=weight,
        jobs=[Waiting(f"{name}{i}", work) for i in range(jobs)],
    )


@pytest.mark.parametrize(
    ("contenders", "room", "order"),
    [
        ([contender("a", jobs=3)], 2, "a0 a1"),
        ([contender("a", jobs=9), contender("b", jobs=2)], 4, "a0 b0 a1 b1"),
        ([contender("a", jobs=9, virtual_time=2), contender("b", jobs=9)], 4, "b0 b1 a0 b2"),
        ([contender("a", jobs=9, weight=2), contender("b", jobs=9)], 6, "a0 b0 a1 a2 b1 a3"),
        ([contender("a", jobs=9, work=4), contender("b", jobs=9)], 6, "a0 b0 b1 b2 b3 a1"),
        ([contender("a", jobs=0)], 4, ""),
        ([], 4, ""),
    ],
)
def test_the_tenant_served_least_goes_next(contenders, room, order):
    assert [job.job_id for job in choose(contenders, room=room)] == order.split()


@given(
    st.lists(st.lists(st.integers(1, 100), min_size=30, max_size=30), min_size=2, max_size=5),
    st.integers(1, 60),
)
def test_backlogged_tenants_are_served_alike_to_within_one_job(works, room):
    """The bound of virtual-time counters: no two differ by more than the largest job."""
    contenders = [
        Contender(uuid.UUID(int=i), 0.0, 1, [Waiting((i, k), work) for k, work in enumerate(jobs)])
        for i, jobs in enumerate(works)
    ]
    chosen = [job.job_id for job in choose(contenders, room=min(room, 29))]
    served = [sum(works[i][k] for i, k in chosen if i == tenant) for tenant in range(len(works))]
    assert max(served) - min(served) <= max(map(max, works))


def release(pool, now=NOW):
    return dispatch.release(pool=pool, now=now, lease_seconds=15)


def tenants_of(attempts):
    return [Job.objects.get(id=attempt.job_id).tenant for attempt in attempts]


def test_jobs_leave_the_queue_only_as_far_as_the_pool_has_room(alice, pool, submit):
    for _ in range(6):
        submit(alice)
    assert len(release(pool)) == 4
    assert release(pool) == []
    assert Job.objects.filter(pool=pool, state=State.QUEUED).count() == 2


def test_within_a_tenant_the_oldest_goes_first(alice, pool, submit):
    jobs = [submit(alice, now=NOW + timedelta(seconds=-i)) for i in range(3)]
    assert [attempt.job_id for attempt in release(pool)] == [job.id for job in reversed(jobs)]


def test_a_burst_of_one_tenant_does_not_starve_another(alice, bob, pool, submit):
    for _ in range(8):
        submit(alice)
    submit(bob, now=NOW + timedelta(seconds=1))
    assert bob.tenant in tenants_of(release(pool))


def finish_all(pool):
    for attempt in Attempt.objects.filter(job__pool=pool, state="live"):
        Attempt.objects.filter(pk=attempt.pk).update(started_at=NOW, lease_expires_at=NOW)
        lifecycle.cancel(job=attempt.job, now=NOW)
        lifecycle.lose(token=attempt.token, now=NOW, attempts_max=3)


def test_a_tenant_that_waits_is_not_passed_over_again_and_again(alice, bob, pool, submit):
    """With room for one at a time, two backlogged tenants alternate."""
    Worker.objects.filter(pool=pool).update(concurrency=1)
    for _ in range(4):
        submit(alice)
        submit(bob)
    order = []
    for _ in range(8):
        order += tenants_of(release(pool))
        finish_all(pool)
    assert all({a, b} == {alice.tenant, bob.tenant} for a, b in zip(order[::2], order[1::2], strict=True))


def test_a_turn_whose_message_was_lost_is_given_back(alice, bob, pool, submit):
    Worker.objects.filter(pool=pool).update(concurrency=1)
    for _ in range(2):
        submit(alice)
        submit(bob)
    (lost,) = release(pool)
    lifecycle.lose(token=lost.token, now=lost.lease_expires_at, attempts_max=3)
    assert tenants_of(release(pool)) == [lost.job.tenant]


def test_an_idle_past_is_no_credit_to_jump_ahead_with(alice, bob, pool, submit):
    Worker.objects.filter(pool=pool).update(concurrency=1)
    submit(bob)
    release(pool)
    finish_all(pool)  # bob is known, and goes away
    for _ in range(6):
        submit(alice)
    for _ in range(3):
        release(pool)
        finish_all(pool)
    for _ in range(3):
        submit(bob)
    order = []
    for _ in range(4):
        order += tenants_of(release(pool))
        finish_all(pool)
    assert order.count(bob.tenant) == 2


def test_a_heavier_tenant_gets_its_share(alice, bob, pool, submit):
    Tenant.objects.filter(pk=alice.tenant.pk).update(fair_share_weight=3)
    for _ in range(4):
        submit(alice)
        submit(bob)
    assert tenants_of(release(pool)).count(alice.tenant) == 3


def test_a_pool_without_a_live_worker_gets_nothing(alice, pool, submit):
    submit(alice)
    assert release(pool, NOW + timedelta(seconds=11)) == []


def test_several_dispatchers_release_a_job_once(alice, pool, submit):
    for _ in range(4):
        submit(alice)

    def turn(_):
        try:
            return release(pool)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as threads:
        released = [attempt.job_id for attempts in threads.map(turn, range(4)) for attempt in attempts]
    assert len(released) == len(set(released)) == 4


def in_the_middle_of_a_turn(pool):
    """Another process that has released jobs of the pool, holds its lock, and has not committed."""
    code = f"""
import django; django.setup()
import sys
from datetime import datetime
from django.db import transaction
from easel.jobs import dispatch
from easel.catalog.models import Pool
dispatch.TURN_IDLE_MS_MAX = 300
with transaction.atomic():
    now = datetime.fromisoformat({NOW.isoformat()!r})
    print(len(dispatch.release(pool=Pool.objects.get(pk={pool.pk}), now=now, lease_seconds=15)), flush=True)
    sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout.readline() == b"4\n"
    return process


@pytest.mark.parametrize("struck", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dispatcher_that_dies_or_hangs_in_its_turn_releases_nothing_and_leaves_it_to_the_next(
    alice, pool, submit, struck
):
    for _ in range(4):
        submit(alice)
    other = in_the_middle_of_a_turn(pool)
    try:
        other.send_signal(struck)
        assert len(release(pool)) == 4
        assert Attempt.objects.filter(job__pool=pool).count() == 4
    finally:
        other.kill()
        other.communicate()


def test_within_a_tenant_the_highest_priority_goes_first(alice, pool, submit):
    ordinary, urgent, late = submit(alice), submit(alice, priority=5), submit(alice, priority=-5)
    assert [attempt.job_id for attempt in release(pool)] == [urgent.id, ordinary.id, late.id]


def test_a_priority_is_worth_nothing_against_another_tenant(alice, bob, pool, submit):
    Worker.objects.filter(pool=pool).update(concurrency=2)
    for _ in range(3):
        submit(alice, priority=10)
    submit(bob, priority=-10, now=NOW + timedelta(seconds=1))
    assert bob.tenant in tenants_of(release(pool, NOW + timedelta(seconds=2)))


def test_a_tenant_has_no_more_running_than_its_cap_and_others_take_the_room(alice, bob, pool, submit):
    Tenant.objects.filter(pk=alice.tenant.pk).update(running_jobs_max=1)
    for _ in range(4):
        submit(alice)
        submit(bob)
    assert tenants_of(release(pool)).count(alice.tenant) == 1
    assert Attempt.objects.filter(job__pool=pool).count() == 4
    assert tenants_of(release(pool)) == []


def test_a_job_past_its_time_is_not_released(alice, pool, submit):
    job = submit(alice)
    assert release(pool, job.expires_at) == []


def test_the_estimate_makes_way_for_what_was_measured(alice, bob, pool, submit, end):
    """Of two tenants with equal requests, the one whose took longer waits."""
    Worker.objects.filter(pool=pool).update(concurrency=1)
    for _ in range(3):
        submit(alice)
        submit(bob)
    (first,) = release(pool)
    end(first.job, gpu_seconds=10.0)
    served = [tenants_of(release(pool))[0]]
    for _ in range(2):
        end(Job.objects.get(pool=pool, state=State.DISPATCHED), gpu_seconds=1.0)
        served += tenants_of(release(pool))
    assert first.job.tenant not in served[:2]
    share = FairShare.objects.get(pool=pool, tenant=first.job.tenant)
    assert share.virtual_time == pytest.approx(10.0)


def lose(attempt, worker="w1"):
    """The worker had begun the attempt when it stopped."""
    Attempt.objects.filter(pk=attempt.pk).update(started_at=NOW, lease_expires_at=NOW, worker=worker)
    lifecycle.lose(token=attempt.token, now=NOW, attempts_max=3)


def test_jobs_that_stopped_two_workers_have_their_last_attempt_one_at_a_time(alice, pool, submit):
    suspects = {submit(alice).id for _ in range(3)}
    for _ in range(2):
        for attempt in release(pool):
            lose(attempt)
    innocent = submit(alice, now=NOW + timedelta(seconds=1))
    (one, other) = release(pool) + release(pool)
    assert {one.job_id, other.job_id} & suspects == {one.job_id}
    assert other.job_id == innocent.id
    lose(one)
    assert Job.objects.get(id=one.job_id).error_code == "job_quarantined"
    (following,) = release(pool)
    assert following.job_id in suspects - {one.job_id}


def test_a_long_queue_of_many_tenants_is_shared_evenly(pool, customer, submit):
    """Each tenant has one before any has two, also when there are more tenants than slots."""
    customers = [customer() for _ in range(9)]
    for one in customers:
        for _ in range(3):
            submit(one)
    order = []
    while attempts := release(pool):
        order += tenants_of(attempts)
        finish_all(pool)
    assert [len(set(order[i : i + 9])) for i in (0, 9, 18)] == [9, 9, 9]


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0.1, 10), st.floats(0.1, 10)), min_size=10, max_size=60))
def test_service_of_backlogged_tenants_differs_by_no_more_than_a_few_jobs_however_wrong_the_estimates(jobs):
    """Virtual time as the dispatcher keeps it, with estimates that are wrong and corrected when the job ends."""
    virtual, served, running = [0.0] * 3, [0.0] * 3, []
    for ends, estimate, measured in jobs:
        contenders = [Contender(uuid.UUID(int=i), virtual[i], 1, [Waiting(i, estimate)]) for i in range(3)]
        ((tenant, charged),) = choose(contenders, room=1)
        virtual[tenant] += charged
        running.append((tenant, charged, measured))
        while len(running) > ends:  # some end at once, some while others are given out
            ended, thought, took = running.pop(0)
            virtual[ended] += took - thought
            served[ended] += took
    longest = max(max(estimate, measured) for _, estimate, measured in jobs)
    assert max(served) - min(served) <= (2 + 2) * longest  # two may still run


def test_an_attempt_remembers_since_when_its_tenant_ran_as_many_jobs_as_it_may(alice, bob, pool, submit, end):
    Tenant.objects.filter(pk=alice.tenant.pk).update(running_jobs_max=1)
    first, second, third = (submit(alice, now=NOW + timedelta(milliseconds=i)) for i in range(3))
    submit(bob)
    release(pool, NOW + timedelta(seconds=1))
    for seconds, job in ((2, first), (3, second)):
        end(job, seconds=seconds)
        release(pool, NOW + timedelta(seconds=seconds))
    since = {one.job_id: one.capped_since for one in Attempt.objects.filter(job__pool=pool)}
    assert [since[job.id] for job in (first, second, third)] == [None, *[NOW + timedelta(seconds=1)] * 2]
    assert [one for one in since.values() if one] == [NOW + timedelta(seconds=1)] * 2


def test_a_tenant_that_has_nothing_left_to_run_is_no_longer_held_by_its_cap(alice, pool, submit, end):
    Tenant.objects.filter(pk=alice.tenant.pk).update(running_jobs_max=1)
    job = submit(alice)
    release(pool)
    end(job)
    release(pool, NOW + timedelta(seconds=1))
    assert FairShare.objects.get(pool=pool, tenant=alice.tenant).capped_since is None
