"""Who runs the workers of its own pool, and lies: it has valid tasks, signed URLs and the login of its namespace."""

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from PIL import Image

from easel_client import Easel
from tests.attacks.conftest import ORDER, PoolOwner
from tests.live import LiveEasel


class HostileWorker:
    """Takes the tasks of its pool and reports what it likes."""

    def __init__(self, owner: PoolOwner) -> None:
        self.namespace, self._redis = owner.namespace, owner.redis()
        self._attempts: list[str] = []

    def say(self, report: dict[str, Any] | bytes) -> None:
        raw = report if isinstance(report, bytes) else json.dumps(report).encode()
        self._redis.xadd(f"{self.namespace}:reports", {"report": raw})

    def beat(self, **fields: Any) -> None:
        progress = [{"attempt_token": token, "steps_done": 10**6, "steps_total": 1} for token in self._attempts]
        totals = {"busy_seconds": 0, "attributed_seconds": 0, "load_seconds": 0}
        lies = {"gpu_class": "free", "started_at": time.time(), "concurrency": 1, "model_version": "m", **totals}
        self.say({"kind": "beat", "worker": "w1", **lies, "attempts": progress, **fields})

    @contextmanager
    def alive(self) -> Iterator[None]:
        ends = threading.Event()

        def beats() -> None:
            while not ends.wait(0.5):
                self.beat()

        self.beat()
        beating = threading.Thread(target=beats)
        beating.start()
        try:
            yield
        finally:
            ends.set()
            beating.join()

    def task(self) -> dict[str, Any]:
        """The next attempt's task. Its lease is extended from now on."""
        taken: Any = self._redis.brpop([f"{self.namespace}:generate"], timeout=60)
        ((task,), _, _) = json.loads(base64.b64decode(json.loads(taken[1])["body"]))
        self._attempts = [task["attempt_token"]]
        return dict(task)

    def success(self, task: dict[str, Any], **lies: Any) -> None:
        output = {"index": 0, "seed": 0, "sha256": "f" * 64, "size_bytes": 10**12}
        end = {"attempt_token": task["attempt_token"], "worker": "w1", "gpu_class": "free", "outcome": "succeeded"}
        self.say({"kind": "finished", **end, "outputs": [output], "gpu_seconds": 0, **lies})


@pytest.fixture
def worker(pool_owner: PoolOwner) -> HostileWorker:
    return HostileWorker(pool_owner)


def picture(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "blue").save(buffer, "png")
    return buffer.getvalue()


def put(task: dict[str, Any], content: bytes) -> int:
    headers = {"Content-Type": "image/png", "If-None-Match": "*"}
    return httpx.put(task["outputs"][0]["url"], content=content, headers=headers).status_code


def test_lies_about_images_and_time_cost_the_liar_and_nobody_else(
    easel: LiveEasel, tenant: Easel, pool_owner: PoolOwner, worker: HostileWorker
) -> None:
    began = time.time()
    with worker.alive():
        job = pool_owner.client.jobs.create(**ORDER)
        first = worker.task()
        worker.success(first)  # it stored nothing
        second = worker.task()
        assert put(first, picture((128, 128))) == 403  # of an attempt that has ended
        assert put(second, picture((128, 112))) == 204
        worker.success(second)  # it stored another size
        third = worker.task()
        assert put(third, picture((128, 128))) == 204
        worker.success(third)
        *_, ended = pool_owner.client.jobs.follow(job)
        assert ended["status"] == "succeeded", ended
        assert put(third, b"another picture") == 403
        worker.success(third, gpu_seconds=10**6)
    took = time.time() - began
    (image,) = ended["images"]
    assert (image["size_bytes"], image["seed"]) == (len(picture((128, 128))), ORDER["seed"])
    assert httpx.get(image["url"]).content == picture((128, 128))
    billed = easel.metrics()[f'easel_gpu_seconds_total{{tenant="{pool_owner.slug}"}}']
    assert 0 < billed <= took
    *_, other = tenant.jobs.follow(tenant.jobs.create(**ORDER))
    assert other["status"] == "succeeded"


def test_neither_names_nor_nonsense_fill_the_metrics(
    easel: LiveEasel, tenant: Easel, pool_owner: PoolOwner, worker: HostileWorker
) -> None:
    worker.beat(started_at=0)
    for number in range(100):
        worker.beat(worker=f"name-{number}", started_at=0, busy_seconds=10**8)
    for nonsense in (
        b"",
        b"\xff",
        b"[" * 10**5,
        b'{"kind":"beat"}',
        b'{"kind":"finished","gpu_seconds":' + b"9" * 5000,
    ):
        worker.say(nonsense)
    worker.beat(busy_seconds="1")
    worker.beat(started_at=0, busy_seconds=1)
    labels = f'pool="{pool_owner.slug}"'
    mine = f'easel_worker_busy_seconds{{{labels},worker="w1"}}'
    easel.wait_for(lambda: easel.metrics().get(mine) == 1)  # of the last report
    shown = {name: value for name, value in easel.metrics().items() if labels in name and "worker=" in name}
    assert len({name.partition("worker=")[2] for name in shown}) <= 64
    assert max(value for name, value in shown.items() if name.startswith("easel_worker_busy_seconds")) <= 3600
    *_, other = tenant.jobs.follow(tenant.jobs.create(**ORDER))
    assert other["status"] == "succeeded"
