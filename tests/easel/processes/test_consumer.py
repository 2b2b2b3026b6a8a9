"""The stream of reports, as its consumers read it: a real Redis, a real PostgreSQL."""

import json

import pytest
from django.db import OperationalError

from core.redis_client import redis_client
from easel.jobs import dispatch, lifecycle
from easel.jobs.models import Job, State
from easel.processes import consumer
from easel.processes.consumer import GROUP, _ensure_group, turn
from inference.contract import AttemptFinished, AttemptProgress, StoredOutput, cancel_key, report_to_json, reports_key
from tests.conftest import NOW, worker_beat


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    monkeypatch.setattr(consumer, "BLOCK_MS", 1)


@pytest.fixture
def stream(pool):
    """The pools as consumers know them; this test's alone."""
    key = reports_key(pool.namespace)
    _ensure_group(key)
    yield {key: pool}
    redis_client().delete(key)


@pytest.fixture
def attempt(alice, pool, submit):
    submit(alice)
    (released,) = dispatch.release(pool=pool, now=NOW, lease_seconds=15)
    return released


def tell(stream, report):
    (key,) = stream
    text = report if isinstance(report, str) else report_to_json(report)
    redis_client().xadd(key, {"report": text})


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
def test_a_report_that_makes_no_sense_is_put_aside_and_the_next_is_applied(stream, attempt, change):
    tell(stream, json.dumps({**success(attempt).to_dict(), **change}))
    tell(stream, success(attempt))
    turn(stream, "c1")
    assert state_of(attempt) == State.SUCCEEDED
    (key,) = stream
    assert redis_client().xlen(key) == 0


def test_a_report_outlives_an_absence_of_postgresql_and_is_applied_as_soon_as_that_is_back(
    stream, attempt, monkeypatch
):
    tell(stream, success(attempt))
    with monkeypatch.context() as away:
        away.setattr(lifecycle, "finish", lambda **_: (_ for _ in ()).throw(OperationalError("away")))
        with pytest.raises(OperationalError):
            turn(stream, "c1")
    turn(stream, "c1", again=True)
    assert state_of(attempt) == State.SUCCEEDED


def test_what_a_dead_consumer_had_taken_is_applied_by_another_within_the_lease(stream, attempt, settings_of):
    tell(stream, success(attempt))
    (key,) = stream
    taken = redis_client().xreadgroup(GROUP, "dead", {key: ">"})
    assert taken
    entry_id = next(iter(redis_client().xpending_range(key, GROUP, "-", "+", 1)))["message_id"]
    settings_of(lease_seconds=15)
    turn(stream, "c1")
    assert state_of(attempt) == State.DISPATCHED  # it may be at it yet
    redis_client().xclaim(key, GROUP, "dead", 0, [entry_id], idle=5001)
    turn(stream, "c1")
    assert state_of(attempt) == State.SUCCEEDED


def test_a_worker_whose_lease_was_lost_is_asked_to_stop(stream, attempt, pool):
    lifecycle.lose(token=attempt.token, now=attempt.lease_expires_at, attempts_max=3)
    progress = (AttemptProgress(attempt_token=str(attempt.token), steps_done=1, steps_total=8),)
    tell(stream, worker_beat(attempts=progress))
    turn(stream, "c1")
    assert redis_client().exists(cancel_key(pool.namespace, str(attempt.token)))
