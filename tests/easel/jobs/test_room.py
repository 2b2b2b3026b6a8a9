"""No capacity idles while anyone waits, and a cap on a tenant holds over all its pools."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connections
from hypothesis import given
from hypothesis import strategies as st

from easel.catalog.models import PoolTier, Worker
from easel.catalog.pools import tier_pool_create
from easel.jobs import dispatch
from easel.jobs.fair_queueing import Contender, Waiting, choose
from easel.jobs.lifecycle import beat
from easel.jobs.models import Attempt, Job, State
from tenants.models import Tenant
from tests.conftest import NOW, worker_beat

IN_HAND = (State.DISPATCHED, State.RUNNING)


def release(pool):
    return dispatch.release(pool=pool, now=NOW, lease_seconds=15)


@given(
    st.lists(st.lists(st.tuples(st.integers(1, 100), st.booleans()), max_size=6), max_size=6),
    st.lists(st.floats(0, 1000), min_size=6, max_size=6),
    st.integers(0, 40),
)
def test_room_is_filled_as_long_as_anyone_has_a_job(tenants, virtual_times, room):
    """All jobs that can run are chosen, or as many as there is room for, and no more than one quarantined job."""
    contenders = [
        Contender(uuid.UUID(int=i), virtual_times[i], 1, [Waiting((i, k), *job) for k, job in enumerate(jobs)])
        for i, jobs in enumerate(tenants)
    ]
    quarantined = {(i, k) for i, jobs in enumerate(tenants) for k, (_, suspect) in enumerate(jobs) if suspect}
    chosen = [job.job_id for job in choose(contenders, room=room)]
    runnable = sum(map(len, tenants)) - max(0, len(quarantined) - 1)
    assert len(chosen) == len(set(chosen)) == min(room, runnable)
    assert len(quarantined & set(chosen)) <= 1


@pytest.fixture
def customers(customer):
    return [customer() for _ in range(4)]


@given(
    jobs=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["fit", "late", "suspect"])), max_size=12),
    caps=st.lists(st.none() | st.integers(1, 3), min_size=4, max_size=4),
    concurrency=st.integers(1, 6),
)
def test_a_pool_has_no_room_left_while_a_tenant_under_its_cap_has_a_job(
    pool, submit, customers, jobs, caps, concurrency
):
    # What the last example left ends, with its attempts, which nobody shall find without their lease.
    of_pool = Attempt.objects.filter(job__pool=pool, state=Attempt.State.LIVE)
    of_pool.update(state=Attempt.State.CANCELED, finished_at=NOW)
    Job.objects.filter(pool=pool, finished_at=None).update(state=State.CANCELED, finished_at=NOW)
    Worker.objects.filter(pool=pool).update(concurrency=concurrency)
    for customer, cap in zip(customers, caps, strict=True):
        Tenant.objects.filter(pk=customer.tenant.pk).update(running_jobs_max=cap)
    for owner, kind in jobs:
        job = submit(customers[owner], now=NOW - timedelta(seconds=3600 if kind == "late" else 1))
        Job.objects.filter(id=job.id).update(quarantined=kind == "suspect")
    while release(pool):
        pass
    in_hand = Job.objects.filter(pool=pool, state__in=IN_HAND)
    suspects = in_hand.filter(quarantined=True).count()
    room = concurrency - in_hand.count()
    assert room >= 0
    assert suspects <= 1
    for customer, cap in zip(customers, caps, strict=True):
        own = in_hand.filter(tenant=customer.tenant).count()
        assert own <= (cap or own)
        waiting = Job.objects.filter(tenant=customer.tenant, state=State.QUEUED, expires_at__gt=NOW)
        if suspects:
            waiting = waiting.filter(quarantined=False)
        assert not (room and own < (cap or concurrency) and waiting.exists())


def test_a_tenant_whose_jobs_cannot_run_does_not_hold_the_place_of_the_next(alice, bob, pool, submit):
    Worker.objects.filter(pool=pool).update(concurrency=1)
    first, second = sorted((alice, bob), key=lambda customer: customer.tenant.id)
    submit(first, now=NOW - timedelta(hours=1))  # past its time, and not swept yet
    waits = submit(second)
    assert [attempt.job_id for attempt in release(pool)] == [waits.id]


@pytest.fixture
def fast(version):
    """A second pool that the tenant's jobs go to: the small ones."""
    made = tier_pool_create(
        name=f"fast-{uuid.uuid4().hex[:12]}", tier=PoolTier.FAST, version=version, gpu_class="cpu", now=NOW
    )
    beat(pool=made, report=worker_beat(concurrency=4), now=NOW, lease_seconds=15)
    return made


def test_a_tenants_cap_holds_over_all_its_pools(alice, bob, pool, fast, submit):
    Tenant.objects.filter(pk=alice.tenant.pk).update(running_jobs_max=3)
    for customer in (alice, bob):
        for size in ("256x256", "512x512") * 2:
            submit(customer, size=size)
    release(pool), release(fast)
    in_hand = Job.objects.filter(state__in=IN_HAND)
    assert in_hand.filter(tenant=alice.tenant).count() == 3
    assert in_hand.filter(tenant=bob.tenant).count() == 4


def test_pools_that_release_at_once_do_not_both_fill_a_tenants_last_place(alice, pool, fast, submit):
    Tenant.objects.filter(pk=alice.tenant.pk).update(running_jobs_max=1)
    for size in ("256x256", "512x512") * 3:
        submit(alice, size=size)

    def turn(of):
        try:
            return release(of)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as threads:
        released = list(threads.map(turn, [pool, fast] * 4))
    assert sum(map(len, released)) == 1
