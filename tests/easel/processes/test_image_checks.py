"""Images of a dedicated pool's worker: looked at before its success is believed."""

import hashlib
import io
import threading
import time

import pytest
from PIL import Image

from core.redis_client import redis_client
from easel.catalog.pools import dedicated_pool_create
from easel.jobs import dispatch, lifecycle
from easel.jobs.models import Job, Output, State
from easel.jobs.storage_keys import output_key
from easel.processes import consumer, image_checks
from easel.processes.consumer import Consumer
from easel.storage import store
from inference.contract import AttemptFinished, StoredOutput, report_to_json, reports_key
from tests.conftest import NOW, worker_beat


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    monkeypatch.setattr(consumer, "BLOCK_MS", 1)


@pytest.fixture
def own(alice, version):
    made = dedicated_pool_create(tenant=alice.tenant, version=version, gpu_class="h200", now=NOW)
    lifecycle.beat(pool=made, report=worker_beat(concurrency=99), now=NOW, lease_seconds=15)
    yield made
    redis_client().delete(reports_key(made.namespace))


@pytest.fixture
def attempt(own, alice, submit):
    """Of a job of two images of 256x256 pixels."""
    submit(alice, n=2)
    (released,) = dispatch.release(pool=own, now=NOW, lease_seconds=15)
    return released


def picture(size=(256, 256), output_format="png"):
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, output_format)
    return buffer.getvalue()


def put(attempt, index, content):
    store().put(output_key(attempt.job, attempt.token, index), io.BytesIO(content), "image/png")


def report(attempt, pool, *indexes, **fields):
    outputs = tuple(StoredOutput(index=i, seed=999, sha256="0" * 64, size_bytes=10**12) for i in indexes)
    given = {"outcome": "succeeded", "gpu_seconds": 1.0, "outputs": outputs, **fields}
    end = AttemptFinished(attempt_token=str(attempt.token), worker="w1", gpu_class="cpu", **given)
    redis_client().xadd(reports_key(pool.namespace), {"report": report_to_json(end)})


def state_of(attempt):
    attempt.refresh_from_db()
    return Job.objects.get(id=attempt.job_id).state, attempt.error_code


def turns(pool, *, until):
    reader, deadline = Consumer("c1"), time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline
        reader.turn([pool])
    return reader


def all_read(pool):
    return lambda: redis_client().xlen(reports_key(pool.namespace)) == 0


def test_size_hash_and_seed_are_those_of_the_object_and_the_task(attempt, own):
    for index in (0, 1):
        put(attempt, index, picture())
    report(attempt, own, 0, 1)
    turns(own, until=all_read(own))
    assert state_of(attempt) == (State.SUCCEEDED, "")
    found = Output.objects.filter(job=attempt.job_id).values_list("index", "seed", "size_bytes", "sha256")
    seed, facts = Job.objects.get(id=attempt.job_id).seed, (len(picture()), hashlib.sha256(picture()).hexdigest())
    assert list(found) == [(0, seed, *facts), (1, seed + 1, *facts)]


@pytest.mark.parametrize(
    ("second", "indexes"),
    [
        (None, (0, 1)),
        (b"", (0, 1)),
        (b"\x89PNG\r\n\x1a\n and so on", (0, 1)),
        (picture(size=(128, 256)), (0, 1)),
        (picture(output_format="jpeg"), (0, 1)),
        (picture()[:-1], (0, 1)),
        (picture() + b"\x00" * (4 * 256 * 256 + 2**16), (0, 1)),
        (picture(), (0,)),
        (picture(), (0, 0)),
        (picture(), (1, 2)),
        (picture(), ()),
        (picture(), (0, 1, 2)),
    ],
    ids=[
        "absent", "empty", "no image", "another size", "another format", "cut off", "too large",
        "one report", "twice", "another index", "no report", "one more",
    ],
)  # fmt: skip
def test_a_success_without_its_images_is_a_failed_attempt(attempt, own, second, indexes):
    put(attempt, 0, picture())
    if second is not None:
        put(attempt, 1, second)
    report(attempt, own, *indexes)
    turns(own, until=all_read(own))
    assert state_of(attempt) == (State.QUEUED, "image_refused")
    assert not Output.objects.filter(job=attempt.job_id).exists()


def test_a_slow_store_keeps_no_other_report_waiting_and_a_store_that_comes_back_is_asked_again(
    attempt, own, pool, bob, submit, monkeypatch
):
    monkeypatch.setattr(image_checks, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(image_checks, "RETRY_SECONDS", 0.0)
    for index in (0, 1):
        put(attempt, index, picture())
    goes_on, asked = threading.Event(), []

    class SlowStore:
        def __getattr__(self, name):
            asked.append(name)
            goes_on.wait(60)
            if len(asked) == 1:
                raise ConnectionError("the store is unavailable")
            return getattr(store(), name)

    slow = SlowStore()
    monkeypatch.setattr(image_checks, "store", lambda: slow)
    foreign = submit(bob)
    (theirs,) = dispatch.release(pool=pool, now=NOW, lease_seconds=15)
    reader = Consumer("c1")
    report(attempt, own, 0, 1)
    reader.turn([own, pool])
    report(theirs, pool, 0)
    deadline = time.monotonic() + 60
    while Job.objects.get(id=foreign.id).state != State.SUCCEEDED:
        assert time.monotonic() < deadline
        reader.turn([own, pool])
    assert state_of(attempt) == (State.DISPATCHED, "")
    goes_on.set()
    while state_of(attempt) != (State.SUCCEEDED, ""):
        assert time.monotonic() < deadline
        reader.turn([own, pool])
    assert asked.count("size_bytes") == 3
