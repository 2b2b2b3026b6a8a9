"""Server-sent events, of which `jobs` and `images` make streams.

An event holds the state when it is sent, not what changed: a client that comes back with `Last-Event-ID` needs no
history, and gets what is newer than its last event.
"""

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import StreamingHttpResponse
from rest_framework.utils.encoders import JSONEncoder

from core.errors import DomainError
from core.threads import in_thread
from easel.api import waiting
from easel.api.errors import error_body

KEEPALIVE = b": keepalive\n\n"


class BrokenOff(Exception):
    """An answer ends here, unfinished, so that its client sees that it failed: its status was sent as a success."""


def streamed(events: AsyncIterator[bytes]) -> StreamingHttpResponse:
    """Return an answer that proxies neither buffer nor cache."""
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingHttpResponse(events, content_type="text/event-stream", headers=headers)


def event(kind: str, data: Any, *, event_id: str = "") -> bytes:
    """One event in the format of the HTML standard, its data one line of JSON."""
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}event: {kind}\ndata: {json.dumps(data, cls=JSONEncoder)}\n\n".encode()


def failure(error: DomainError) -> bytes:
    return event("error", {"type": "error", **error_body(error), "http_code": error.http_status})


async def follow(
    job_id: UUID,
    read_events: Callable[[], tuple[list[bytes], bool]],
    *,
    timeout_seconds: float,
    late: Callable[[], DomainError],
) -> AsyncGenerator[bytes]:
    """Yield the new events of a job at each change, with keepalives between.

    `read_events` returns them, and True if they are the last. It runs on a thread, and is skipped while the database is
    unavailable. A timeout ends the stream with the `error` that `late` returns, on a thread too.
    """
    wakeups = waiting.wakeups(job_id, timeout_seconds=timeout_seconds, idle_seconds=settings.EASEL.keepalive_seconds)
    async with contextlib.aclosing(wakeups):
        async for noticed in wakeups:
            if not noticed:
                yield KEEPALIVE
            with contextlib.suppress(OperationalError, InterfaceError):
                found, is_over = await in_thread(read_events)
                for part in found:
                    yield part
                if is_over:
                    return
    yield failure(await in_thread(late))
