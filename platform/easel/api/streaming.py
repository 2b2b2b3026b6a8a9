"""Server-sent events: a job as it goes on, and OpenAI's streamed images.

An event tells how the job stands when it is sent, not what changed: whoever comes back with `Last-Event-ID` needs no
history, and gets what is newer than what it saw. A client that goes away leaves its job alone.
"""

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import InterfaceError, OperationalError
from django.http import StreamingHttpResponse
from rest_framework.utils.encoders import JSONEncoder

from core.errors import DomainError
from core.threads import in_thread
from easel.api import waiting
from easel.api.errors import StillRunning, error_body
from easel.api.rendering import job_json, stream_completed_json, stream_partial_json
from easel.jobs import queries
from easel.jobs.models import Job
from tenants.keys import key_confirm
from tenants.models import ApiKey, Tenant

KEEPALIVE_SECONDS = 15  # proxies end connections that say nothing for a minute

_KEEPALIVE = b": keepalive\n\n"


def streamed(events: AsyncIterator[bytes]) -> StreamingHttpResponse:
    """An answer that proxies neither keep back nor keep."""
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingHttpResponse(events, content_type="text/event-stream", headers=headers)


def event(kind: str, data: Any, *, event_id: str = "") -> bytes:
    """One event in the format of the HTML standard, its data one line of JSON."""
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}event: {kind}\ndata: {json.dumps(data, cls=JSONEncoder)}\n\n".encode()


async def job_events(key: ApiKey, job_id: UUID, *, seen: str, timeout_seconds: float) -> AsyncIterator[bytes]:
    """`job.<status>` at every change, until the job has ended. `seen` is the id of the last event a client had.

    A key that is revoked meanwhile is told nothing more: an `error` ends its stream.
    """

    def look() -> tuple[str, Job, dict[str, Any]]:
        key_confirm(key)
        job = queries.job_get(tenant=key.tenant, job_id=job_id)
        shown = job_json(job)
        return f"{shown['attempts']}-{shown['progress']['steps_done']}-{job.state}", job, shown

    async with contextlib.aclosing(_turns(job_id, timeout_seconds)) as turns:
        async for noticed in turns:
            if not noticed:
                yield _KEEPALIVE
            with contextlib.suppress(OperationalError, InterfaceError):
                try:
                    event_id, job, shown = await in_thread(look)
                except DomainError as error:
                    yield _failure(error)
                    return
                if event_id != seen:
                    yield event(f"job.{job.state}", shown, event_id=event_id)
                    seen = event_id
                if job.finished_at is not None:
                    return


@dataclass(slots=True)
class ImageStream:
    """OpenAI's events for the images of one job: partial ones as they come, then each image, or an error."""

    tenant: Tenant
    job_id: UUID
    response_format: str
    shown: set[tuple[int, int]] = field(default_factory=set)

    async def events(self, *, timeout_seconds: float) -> AsyncGenerator[bytes]:
        async with contextlib.aclosing(_turns(self.job_id, timeout_seconds)) as turns:
            async for noticed in turns:
                if not noticed:
                    yield _KEEPALIVE
                with contextlib.suppress(OperationalError, InterfaceError):
                    found, over = await in_thread(self._look)
                    for part in found:
                        yield part
                    if over:
                        return
        yield _failure(StillRunning.of(self.job_id))

    def _look(self) -> tuple[list[bytes], bool]:
        """The events that are new, and whether they are the last."""
        job = queries.job_get(tenant=self.tenant, job_id=self.job_id)
        try:
            if job.finished_at is None:
                return list(self._partial(job)), False
            images = stream_completed_json(job, response_format=self.response_format)
        except DomainError as error:
            return [_failure(error)], True
        return [event(image["type"], image) for image in images], True

    def _partial(self, job: Job) -> Iterator[bytes]:
        for attempt in job.attempts.all():
            for index, number in attempt.previews:
                # A later attempt draws the same again.
                if (index, number) in self.shown:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    partial = stream_partial_json(job, attempt, index=index, number=number)
                    self.shown.add((index, number))
                    yield event(partial["type"], partial)


def _failure(error: DomainError) -> bytes:
    return event("error", {"type": "error", **error_body(error), "http_code": error.http_status})


def _turns(job_id: UUID, timeout_seconds: float) -> AsyncGenerator[bool]:
    return waiting.looks(job_id, timeout_seconds=timeout_seconds, idle_seconds=KEEPALIVE_SECONDS)
