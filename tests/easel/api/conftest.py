"""The API as its callers meet it: over ASGI, with a real database; the tests play the worker."""

import asyncio
import io
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest
from django.db import connection
from psycopg_pool import ConnectionPool

from core import clock
from easel.asgi import application
from easel.jobs import dispatch, lifecycle
from easel.jobs.models import Attempt, Job
from easel.jobs.storage_keys import output_key
from easel.storage import store
from inference.contract import AttemptFinished, StoredOutput
from tests.conftest import NOW, Customer
from tests.easel.api.described import check

PNG = b"\x89PNG\r\n\x1a\n and so on"


async def ask(method: str, path: str, *, secret: str | None = None, **options: Any) -> httpx.Response:
    """One request to the application in this process. Its answer must be as the OpenAPI document says."""
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    headers |= options.pop("headers", {})
    transport = httpx.ASGITransport(app=application, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://easel.test", timeout=30) as client:
        answer = await client.request(method, path, headers=headers, **options)
    check(answer)
    return answer


def call(method: str, path: str, customer: Customer | None = None, **options: Any) -> httpx.Response:
    secret = customer.secret if customer else None
    return asyncio.run(ask(method, path, secret=secret, **options))


@pytest.fixture
def body(version) -> Callable[..., dict[str, Any]]:
    """The JSON of a small request to this test's model; a field given as `...` is left out."""

    def make(**fields: Any) -> dict[str, Any]:
        given = {"model": version.model.name, "prompt": "a red circle", **fields}
        return {name: value for name, value in given.items() if value is not ...}

    return make


@pytest.fixture
def create(body) -> Callable[..., dict[str, Any]]:
    """Creates a job through the API and returns its JSON."""

    def make(customer: Customer, **fields: Any) -> dict[str, Any]:
        answer = call("POST", "/v1/jobs", customer, json=body(**fields))
        assert answer.status_code == 202, answer.text
        return answer.json()

    return make


def without_links(job: dict[str, Any]) -> dict[str, Any]:
    """A job's JSON without the links to its images: each answer signs them anew, until a second of its own."""
    return {**job, "images": [{**image, "url": None} for image in job["images"]]}


def end_job(job_id: str, *, outcome: str = "succeeded", gpu_seconds: float = 1.5, **fields: Any) -> None:
    """What a worker does: takes the job, stores its images, and reports."""
    job = Job.objects.get(id=job_id)
    dispatch.release(pool=job.pool, now=NOW, lease_seconds=3600)
    end_attempt(job.attempts.get(), outcome=outcome, gpu_seconds=gpu_seconds, **fields)


def end_attempt(
    attempt: Attempt,
    *,
    outcome: str = "succeeded",
    gpu_seconds: float = 1.5,
    now: datetime | None = None,
    **fields: Any,
) -> None:
    """What a worker does with an attempt: stores the images of its job, and reports."""
    job, outputs = attempt.job, []
    for index in range(job.n if outcome == "succeeded" else 0):
        store().put(output_key(job, attempt.token, index), io.BytesIO(PNG), "image/png")
        outputs.append(StoredOutput(index=index, seed=job.seed + index, sha256="0" * 64, size_bytes=len(PNG)))
    report = AttemptFinished(
        attempt_token=str(attempt.token),
        worker="w1",
        gpu_class="cpu",
        outcome=outcome,
        gpu_seconds=gpu_seconds,
        outputs=tuple(outputs),
        **fields,
    )
    lifecycle.finish(pool=job.pool, report=report, now=now or clock.now(), attempts_max=1)


@pytest.fixture
def database_unavailable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing listens where the database should be."""
    with ConnectionPool("host=127.0.0.1 port=1", min_size=1, timeout=0.2, open=True) as nowhere:
        monkeypatch.setitem(connection._connection_pools, "default", nowhere)
        yield
        monkeypatch.undo()
