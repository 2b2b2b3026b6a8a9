"""Turns of the dispatcher while a pool's workers misuse its part of a real Redis."""

import uuid
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from redis.exceptions import OutOfMemoryError

from core.redis_client import redis_client
from easel.catalog.models import Pool, PoolFault
from easel.jobs import transport
from easel.jobs.lifecycle import beat
from easel.jobs.models import Attempt
from easel.processes import dispatcher
from easel.seed import DEMO_LIMITS
from easel.serving.versions import version_register
from inference.contract import QUEUE
from tests.conftest import NOW, worker_beat

POISONS = {
    "string": lambda redis, key: redis.set(key, "x"),
    "set": lambda redis, key: redis.sadd(key, *range(10_000)),
    "sorted set": lambda redis, key: redis.zadd(key, {"x": 1}),
    "hash": lambda redis, key: redis.hset(key, "x", "y" * 4_000_000),
    "stream": lambda redis, key: redis.xadd(key, {"x": "y"}),
}


@pytest.fixture
def neighbour(version, tmp_path):
    """Another pool, with a model of its own."""
    slug = f"pool-{uuid.uuid4().hex[:12]}"
    pool = Pool.objects.create(slug=slug, namespace=f"easel-{slug}", gpu_class="cpu", created_at=NOW)
    version_register(model_name=slug, checkpoint=str(tmp_path), pool=pool, limits=DEMO_LIMITS, now=NOW)
    return pool


@pytest.fixture
def turn(neighbour, pool, monkeypatch):
    """A turn of a dispatcher that knows two pools, whose workers live."""
    both = Pool.objects.filter(pk__in=[neighbour.pk, pool.pk]).order_by("-pk")  # the neighbour comes first
    monkeypatch.setattr(dispatcher, "Pool", SimpleNamespace(objects=both))
    monkeypatch.setattr(dispatcher.queue, "pools_with_waiting_batches", list)
    for each in both:
        now = datetime.now(UTC)
        beat(pool=each, report=worker_beat(concurrency=4, started_at=now.timestamp()), now=now, lease_seconds=15)
    return dispatcher.turn


def queued(pool):
    return redis_client().llen(f"{pool.namespace}:{QUEUE}")


@pytest.mark.parametrize("poison", POISONS)
def test_a_poisoned_queue_stops_no_other_pool_and_is_mended(turn, pool, neighbour, submit, alice, bob, poison):
    redis, now = redis_client(), datetime.now(UTC)
    POISONS[poison](redis, f"{neighbour.namespace}:{QUEUE}")
    for binding in ("_kombu.binding.generate", "_kombu.binding_permanent.generate"):
        redis.set(f"{neighbour.namespace}:{binding}", "x")
    submit(bob, model=neighbour.slug, now=now)
    job = submit(alice, now=now)
    assert [attempt.job_id for attempt in turn()] == [job.id]
    assert queued(pool) == 1
    turn()
    assert queued(neighbour) == 1
    assert neighbour.faults.get().kind == PoolFault.Kind.SEND
    assert not redis.exists(f"{neighbour.namespace}:_kombu.binding.generate")


def test_an_attempt_that_redis_had_no_room_for_is_sent_as_soon_as_it_has(turn, pool, submit, alice, monkeypatch):
    job = submit(alice, now=datetime.now(UTC))

    def refuse(attempts):
        if attempts:
            raise OutOfMemoryError("used memory > 'maxmemory'")

    with monkeypatch.context() as full:
        full.setattr(transport, "send", refuse)
        with pytest.raises(OutOfMemoryError):
            turn()
    assert [attempt.job_id for attempt in turn()] == [job.id]
    assert queued(pool) == 1
    assert not pool.faults.exists()


def test_an_attempt_that_was_not_sent_within_its_lease_is_left_to_the_next(turn, pool, submit, alice, monkeypatch):
    job = submit(alice, now=datetime.now(UTC))
    dispatcher._unsent[pool.pk] = [Attempt(job=job, lease_expires_at=datetime.now(UTC) - timedelta(seconds=1))]
    assert [attempt.number for attempt in turn()] == [1]
