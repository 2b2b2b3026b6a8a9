"""The stream of reports, as its consumers read it: a real Redis, a real PostgreSQL."""

import json
import time
import uuid

import pytest
from django.db import OperationalError
from psycopg.errors import AdminShutdown, StatementTooComplex

from core.redis_client import redis_client
from easel.catalog.models import Pool, PoolFault
from easel.jobs import dispatch, lifecycle
from easel.jobs.models import Job, State
from easel.processes import consumer
from easel.processes.consumer import Consumer
from easel.processes.pool_streams import ENTRIES_MAX, GROUP, STREAM_ENTRIES_MAX
from inference.contract import AttemptFinished, AttemptProgress, StoredOutput, cancel_key, report_to_json, reports_key
from tests.conftest import NOW, worker_beat


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    monkeypatch.setattr(consumer, "BLOCK_MS", 1)


@pytest.fixture
def stream(pool):
    """The stream of this test's pool."""
    key = reports_key(pool.namespace)
    yield key
    redis_client().delete(key)


@pytest.fixture
def consumer_of(pool):
    """Makes consumers of this test's pool alone, by name."""

    def make(name="c1"):
        return PoolConsumer(name, [pool])

    return make


class PoolConsumer:
    """A consumer of certain pools, whose streams it has made."""

    def __init__(self, name, pools):
        self.consumer, self.pools = Consumer(name), pools
        self.turn()

    def turn(self):
        return self.consumer.turn(self.pools)


@pytest.fixture
def attempt(alice, pool, submit):
    submit(alice)
    (released,) = dispatch.release(pool=pool, now=NOW, lease_seconds=15)
    return released


def tell(stream, report):
    text = report if isinstance(report, str | bytes) else report_to_json(report)
    redis_client().xadd(stream, {"report": text})


def success(attempt, **fields):
    outputs = (StoredOutput(index=0, seed=1, sha256="0" * 64, size_bytes=10),)
    given = {"outcome": "succeeded", "gpu_seconds": 1.5, "outputs": outputs, **fields}
    return AttemptFinished(attempt_token=str(attempt.token), worker="w1", gpu_class="cpu", **given)


def state_of(attempt):
    return Job.objects.get(id=attempt.job_id).state


@pytest.mark.parametrize(
    "change",
    [
        {"gpu_seconds": float("nan")},
        {"gpu_seconds": None},
        {"outcome": "live"},
        {"outcome": "lost"},
        {"outputs": []},
        {"error_message": None},
        {"attempt_token": 7},
        {"attempt_token": "none"},
    ],
)
def test_a_report_that_makes_no_sense_is_put_aside_and_the_next_is_applied(stream, attempt, consumer_of, change):
    tell(stream, json.dumps({**success(attempt).to_dict(), **change}))
    tell(stream, success(attempt))
    consumer_of().turn()
    assert state_of(attempt) == State.SUCCEEDED
    assert redis_client().xlen(stream) == 0


def beat_with(**fields):
    """A beat of a worker that started just now: nothing was up on any earlier day."""
    return json.dumps({**worker_beat(started_at=time.time()).to_dict(), **fields})


HOSTILE = {
    "nothing": b"",
    "no UTF-8": b'{"kind":"beat\xff"}',
    "deeply nested": b"[" * 200_000,
    "megabytes": b'{"kind":"beat","worker":"' + b"w" * 3_000_000 + b'"}',
    "a number of 100,000 digits": b'{"kind":"beat","steps":' + b"9" * 100_000 + b"}",
    "infinite seconds": beat_with(busy_seconds=float("inf"), started_at=float("inf")),
    "a number beyond any column": beat_with(concurrency=10**30),
    "a NUL": beat_with(worker="w\0"),
    "a surrogate": b'{"kind":"beat","worker":"\\ud800"}',
    "thousands of attempts": beat_with(
        attempts=[{"attempt_token": str(uuid.uuid4()), "steps_done": 1, "steps_total": 8} for _ in range(2000)]
    ),
    "other kinds of values": b'{"kind":["beat"],"worker":{}}',
    "no object": b"7",
}


def test_reports_of_any_size_and_shape_keep_no_other_report_from_being_applied(stream, attempt, pool, consumer_of):
    for report in HOSTILE.values():
        tell(stream, report)
    redis_client().xadd(stream, {"another field": "x"})
    tell(stream, success(attempt))
    consumer = consumer_of()
    while redis_client().xlen(stream):
        assert consumer.turn()
    assert state_of(attempt) == State.SUCCEEDED
    assert pool.faults.get().kind == PoolFault.Kind.REPORT


POISONS = {
    "string": lambda redis, key: redis.set(key, "x" * 4_000_000),
    "empty string": lambda redis, key: redis.set(key, ""),
    "list": lambda redis, key: redis.rpush(key, *range(10_000)),
    "set": lambda redis, key: redis.sadd(key, *range(10_000)),
    "sorted set": lambda redis, key: redis.zadd(key, {"x": 1}),
    "hash": lambda redis, key: redis.hset(key, "x", "y"),
    "stream without a group": lambda redis, key: redis.xadd(key, {"report": beat_with()}),
    "stream whose last id no other can follow": lambda redis, key: redis.xadd(
        key, {"report": "{}"}, id=f"{2**64 - 1}-{2**64 - 1}", maxlen=0, approximate=False
    ),
    "nothing": lambda redis, key: None,
}


@pytest.mark.parametrize("poison", POISONS)
def test_a_poisoned_stream_stops_no_other_pool_and_is_mended(stream, attempt, pool, neighbour, poison):
    consumer = PoolConsumer("c1", [neighbour, pool])
    redis_client().delete(reports_key(neighbour.namespace))
    POISONS[poison](redis_client(), reports_key(neighbour.namespace))
    tell(stream, success(attempt))
    consumer.turn()
    assert state_of(attempt) == State.SUCCEEDED
    assert pool in consumer.consumer.readable([neighbour, pool])
    consumer.consumer._mended_at.clear()  # its regular look is due
    consumer.turn()
    tell(reports_key(neighbour.namespace), beat_with())
    consumer.turn()
    assert neighbour.workers.exists()
    innocent = ("nothing", "stream without a group")  # as after a restart of Redis
    assert [fault.kind for fault in neighbour.faults.all()] == ([] if poison in innocent else [PoolFault.Kind.KEY])


def test_the_consumer_waits_for_no_stream_that_it_could_not_read_a_moment_ago(stream, pool, neighbour):
    """Otherwise a worker that poisons its stream again and again would keep the consumer busy."""
    consumer = PoolConsumer("c1", [neighbour, pool])
    redis_client().set(reports_key(neighbour.namespace), "x")
    consumer.turn()
    assert consumer.consumer.readable([neighbour, pool]) == [pool]


@pytest.fixture
def neighbour():
    slug = f"pool-{uuid.uuid4().hex[:12]}"
    made = Pool.objects.create(slug=slug, namespace=f"easel-{slug}", gpu_class="cpu", created_at=NOW)
    yield made
    redis_client().delete(reports_key(made.namespace))


def test_a_pool_that_floods_its_stream_gets_its_share_of_a_turn_and_no_more(stream, attempt, pool, neighbour):
    consumer = PoolConsumer("c1", [neighbour, pool])
    with redis_client().pipeline(transaction=False) as pipe:
        for _ in range(STREAM_ENTRIES_MAX + 5000):
            pipe.xadd(reports_key(neighbour.namespace), {"report": "{}"})
        pipe.execute()
    tell(stream, success(attempt))
    assert consumer.turn() <= ENTRIES_MAX + 2
    assert state_of(attempt) == State.SUCCEEDED
    consumer.consumer._mended_at.clear()
    consumer.turn()
    assert redis_client().xlen(reports_key(neighbour.namespace)) <= STREAM_ENTRIES_MAX


def test_of_a_stream_of_megabytes_one_entry_is_read_at_a_time(stream, consumer_of):
    consumer = consumer_of()
    for _ in range(5):
        redis_client().xadd(stream, {"report": "x" * 3_000_000})
    assert consumer.turn() == 2
    while redis_client().xlen(stream):
        assert consumer.turn()


def test_an_entry_that_was_deleted_after_a_dead_consumer_read_it_is_forgotten(stream, attempt, consumer_of):
    consumer = consumer_of()
    tell(stream, "{}")
    redis_client().xreadgroup(GROUP, "dead", {stream: ">"})
    entry_id = redis_client().xpending_range(stream, GROUP, "-", "+", 1)[0]["message_id"]
    redis_client().xdel(stream, entry_id)
    redis_client().xclaim(stream, GROUP, "dead", 0, [entry_id], idle=3_600_000)
    tell(stream, success(attempt))
    consumer.turn()
    assert state_of(attempt) == State.SUCCEEDED
    assert redis_client().xpending(stream, GROUP)["pending"] == 0


def test_a_report_outlives_an_absence_of_postgresql_and_is_applied_as_soon_as_that_is_back(
    stream, attempt, consumer_of, monkeypatch
):
    consumer = consumer_of()
    tell(stream, success(attempt))
    with monkeypatch.context() as away:
        away.setattr(lifecycle, "finish", lambda **_: refused_by_postgresql(AdminShutdown()))
        for _ in range(5):
            with pytest.raises(OperationalError):
                consumer.turn()
    consumer.turn()
    assert state_of(attempt) == State.SUCCEEDED


def test_a_report_that_is_too_much_for_postgresql_is_put_aside_after_some_tries(
    stream, attempt, pool, consumer_of, monkeypatch
):
    consumer = consumer_of()
    tell(stream, success(attempt))
    monkeypatch.setattr(lifecycle, "finish", lambda **_: refused_by_postgresql(StatementTooComplex()))
    for _ in range(3):
        consumer.turn()
    assert redis_client().xlen(stream) == 0
    assert pool.faults.get().kind == PoolFault.Kind.REPORT


def refused_by_postgresql(error):
    raise OperationalError(str(error)) from error


def test_what_a_dead_consumer_had_taken_is_applied_by_another_within_the_lease(
    stream, attempt, consumer_of, settings_of
):
    consumer = consumer_of()
    tell(stream, success(attempt))
    assert redis_client().xreadgroup(GROUP, "dead", {stream: ">"})
    entry_id = redis_client().xpending_range(stream, GROUP, "-", "+", 1)[0]["message_id"]
    settings_of(lease_seconds=15)
    consumer.turn()
    assert state_of(attempt) == State.DISPATCHED  # it may be at it yet
    redis_client().xclaim(stream, GROUP, "dead", 0, [entry_id], idle=5001)
    consumer.turn()
    assert state_of(attempt) == State.SUCCEEDED


def test_a_worker_whose_lease_was_lost_is_asked_to_stop(stream, attempt, pool, consumer_of):
    lifecycle.lose(token=attempt.token, now=attempt.lease_expires_at, attempts_max=3)
    progress = (AttemptProgress(attempt_token=str(attempt.token), steps_done=1, steps_total=8),)
    tell(stream, worker_beat(attempts=progress))
    consumer_of().turn()
    assert redis_client().exists(cancel_key(pool.namespace, str(attempt.token)))
