"""What a worker has told before it goes on: an attempt's work may be the last thing that it does."""

import time
import uuid

import pytest
import redis

from inference.contract import GenerationTask, UploadTarget, WorkerBeat, report_from_json, reports_key
from inference.errors import WorkerStopped
from inference.worker.attempts import Attempts
from inference.worker.reports import Reporter


class EngineThatEnds:
    """Notes what it is asked for, and ends there."""

    def __init__(self, events):
        self._events = events

    def submit(self, request, **_):
        self._events.append("work")
        raise WorkerStopped("ended")


def test_an_attempt_is_told_of_before_its_work_begins():
    events = []
    attempts = Attempts(
        engine=EngineThatEnds(events),
        adapters=None,
        client=None,
        clock=time.monotonic,
        worker="w1",
        gpu_class="cpu",
        model_versions=("m",),
        begins=lambda: events.append([attempt.attempt_token for attempt in attempts.progress()]),
        news=lambda: None,
        finished=lambda end: events.append(end.outcome),
    )
    task = GenerationTask(
        attempt_token="token",
        job_id="job",
        request_id="request",
        tenant="acme",
        model_version="m",
        prompt="a red circle",
        width=64,
        height=64,
        steps=2,
        output_format="png",
        output_compression=100,
        adapters=(),
        outputs=(UploadTarget(index=0, seed=1, url="http://127.0.0.1:1/x"),),
        expires_at=60.0,
    )
    attempts.run(task, now=0.0)
    assert events == [["token"], "work", "failed"]


@pytest.fixture
def reporter(redis_server):
    namespace = f"easel-{uuid.uuid4().hex}"

    def beat():
        return WorkerBeat(
            worker="w1",
            gpu_class="cpu",
            concurrency=1,
            model_version="m",
            started_at=0,
            busy_seconds=0,
            attributed_seconds=0,
            load_seconds=0,
        )

    def make(client):
        return Reporter(client, namespace, beat=beat, cancel=lambda token: None), reports_key(namespace)

    return make


def test_a_beat_before_the_work_is_with_redis_when_the_work_begins(redis_server, reporter):
    told, key = reporter(redis_server.client)
    told.beat_before()
    ((_, fields),) = redis_server.client.xrange(key)
    assert report_from_json(fields[b"report"]).worker == "w1"


def test_work_begins_without_a_beat_where_redis_is_away(reporter):
    told, _ = reporter(redis.Redis(port=1, socket_connect_timeout=1))
    told.beat_before()
