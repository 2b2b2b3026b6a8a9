"""Batches as their callers meet them: through OpenAI's client, over ASGI, while the tests play scheduler and worker."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import openai
import pytest
from django.conf import settings

from easel.asgi import application
from easel.batches.feeding import lines_feed
from easel.batches.lifecycle import batches_advance
from easel.catalog.models import Worker
from easel.jobs import dispatch
from easel.jobs.models import Attempt, Job
from tests.conftest import Customer
from tests.easel.api.conftest import end_attempt

LEASE_SECONDS = 3600


def sdk(customer: Customer, use: Callable[[openai.AsyncOpenAI], Coroutine[Any, Any, Any]]) -> Any:
    """Run `use` with OpenAI's own client, as this customer."""

    async def run() -> Any:
        transport = httpx.ASGITransport(app=application, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport) as http:
            return await use(
                openai.AsyncOpenAI(
                    api_key=customer.secret, base_url="http://easel.test/v1", http_client=http, max_retries=0
                )
            )

    return asyncio.run(run())


@pytest.fixture
def line(version) -> Callable[..., dict[str, Any]]:
    """A line of a file: `line("a", body={"seed": 1}, method="GET")`; a field given as `...` is left out."""

    def make(custom_id: Any, *, body: Any = None, **changed: Any) -> dict[str, Any]:
        given = {
            "custom_id": custom_id,
            "method": "POST",
            "url": "/v1/images/generations",
            "body": {"model": version.model.name, "prompt": f"a red circle {custom_id}", **(body or {})},
            **changed,
        }
        return {name: value for name, value in given.items() if value is not ...}

    return make


def jsonl(lines: list[Any]) -> bytes:
    return b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in lines)


@pytest.fixture
def batch(line) -> Callable[..., Any]:
    """Uploads lines and makes a batch of them, through OpenAI's client."""

    def make(customer: Customer, lines: list[Any], **fields: Any) -> Any:
        async def use(client: openai.AsyncOpenAI) -> Any:
            file = await client.files.create(file=("requests.jsonl", jsonl(lines)), purpose="batch")
            given = {"completion_window": "24h", "endpoint": "/v1/images/generations", **fields}
            return await client.batches.create(input_file_id=file.id, **given)

        return sdk(customer, use)

    return make


@pytest.fixture
def live(pool):
    """The test's pool, with a worker that beats now: the API reads the real clock."""
    Worker.objects.filter(pool=pool).update(beat_at=datetime.now(UTC) + timedelta(days=30))
    return pool


def turn(now: datetime | None = None) -> None:
    """One turn of the scheduler."""
    now = now or datetime.now(UTC)
    batches_advance(now=now)
    lines_feed(config=settings.EASEL, now=now)


def work(pool, *, now: datetime | None = None, **outcome: Any) -> list[Job]:
    """The dispatcher releases what it may of the batches, and the worker ends each attempt."""
    now = now or datetime.now(UTC)
    released = dispatch.release_batch(pool=pool, now=now, lease_seconds=LEASE_SECONDS)
    return [finish(attempt, now=now, **outcome) for attempt in released]


def finish(attempt: Attempt, *, now: datetime | None = None, **outcome: Any) -> Job:
    end_attempt(attempt, now=now, **outcome)
    return Job.objects.get(pk=attempt.job_id)


def read(customer: Customer, file_id: str) -> list[dict[str, Any]]:
    """The lines of a file."""

    async def use(client: openai.AsyncOpenAI) -> list[dict[str, Any]]:
        content = await client.files.content(file_id)
        return [json.loads(one) for one in content.text.splitlines()]

    return sdk(customer, use)


def retrieve(customer: Customer, batch_id: str) -> Any:
    return sdk(customer, lambda client: client.batches.retrieve(batch_id))
