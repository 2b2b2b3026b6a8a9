"""The time from a request to the start of its task on an idle system, beside the same time of a bare Celery task."""

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
from celery import Celery
from celery.contrib.testing.worker import start_worker
from django.db import connections

from easel.catalog.models import Pool
from easel.jobs import lifecycle
from easel.jobs.transport import celery_for
from easel.processes import dispatcher
from inference.contract import QUEUE, TASK_NAME
from tests.bench.gateway import fixtures
from tests.bench.gateway.submissions import Server
from tests.conftest import worker_beat

BARE = "bench.bare"


def start_ms(server: Server, *, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds to the start of the task: (of a job, since its POST; of a bare task, since it was sent).

    Jobs and bare tasks take turns on one Celery worker of the pool, whose tasks do nothing.
    """
    version, (owner,) = fixtures.served_model(), fixtures.customers(1)
    body = {"prompt": "a red circle", "model": version.model.name, "size": "256x256"}
    celery = celery_for(version.pool.namespace)
    ours: list[float] = []
    bare: list[float] = []
    with _null_worker(celery) as started, _dispatcher(), httpx.Client(timeout=30) as client:
        for turn in range(rounds + 3):
            _beat(version.pool)
            time.sleep(0.05)  # until the system is idle
            begun = time.perf_counter()
            answer = client.post(
                f"http://127.0.0.1:{server.port}/v1/jobs",
                json=body,
                headers={"Authorization": f"Bearer {owner.secret}"},
            )
            answer.raise_for_status()
            job_seconds = started.get(timeout=60) - begun
            time.sleep(0.05)
            begun = time.perf_counter()
            celery.send_task(BARE, queue=QUEUE, ignore_result=True)
            task_seconds = started.get(timeout=60) - begun
            if turn >= 3:  # the first turns warm up
                ours.append(1000 * job_seconds)
                bare.append(1000 * task_seconds)
    return ours, bare


def _beat(pool: Pool) -> None:
    report = worker_beat(concurrency=10_000)
    lifecycle.beat(pool=pool, report=report, now=datetime.now(UTC), lease_seconds=3600)


@contextmanager
def _null_worker(celery: Celery) -> Iterator["queue.Queue[float]"]:
    started: queue.Queue[float] = queue.Queue()

    def note(*_args: Any, **_kwargs: Any) -> None:
        started.put(time.perf_counter())

    for name in (TASK_NAME, BARE):
        celery.task(name=name)(note)
    celery.conf.task_default_queue = QUEUE
    with start_worker(celery, pool="solo", perform_ping_check=False, queues=[QUEUE], shutdown_timeout=60):
        yield started


@contextmanager
def _dispatcher() -> Iterator[None]:
    stop = threading.Event()

    def run() -> None:
        dispatcher.run(stop)
        connections.close_all()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
