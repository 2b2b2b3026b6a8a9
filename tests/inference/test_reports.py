"""A worker reports an attempt before it works on it, because that work may be the last thing it does."""

import time
import uuid

import pytest
import redis

from inference.contract import WorkerBeat, report_from_json, reports_key
from inference.errors import WorkerStopped
from inference.worker.attempts import Attempts
from inference.worker.reports import Reporter


class EngineThatEnds:
    """An engine that records the request and then stops."""

    def __init__(self, events):
        self._events = events

    def submit(self, request, **_):
        self._events.append("work")
        raise WorkerStopped("ended")


def test_an_attempt_is_reported_before_its_work_begins(new_task):
    events = []
    attempts = Attempts(
        engine=EngineThatEnds(events),
        adapters=None,
        client=None,
        clock=time.monotonic,
        worker="w1",
        gpu_class="cpu",
        model_versions=("tiny",),
        on_begin=lambda: events.append([attempt.attempt_token for attempt in attempts.progress()]),
        on_preview_stored=lambda: None,
        on_finish=lambda end: events.append(end.outcome),
    )
    attempts.run(new_task(attempt_token="token"), now=0.0)
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


def test_a_beat_is_in_redis_when_send_beat_returns(redis_server, reporter):
    sender, key = reporter(redis_server.client)
    sender.send_beat()
    ((_, fields),) = redis_server.client.xrange(key)
    assert report_from_json(fields[b"report"]).worker == "w1"


def test_work_begins_without_a_beat_when_redis_is_unavailable(reporter):
    sender, _ = reporter(redis.Redis(port=1, socket_connect_timeout=1))
    sender.send_beat()
