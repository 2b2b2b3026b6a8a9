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
from easel.api.access import Access
from easel.api.errors import error_body

KEEPALIVE = b": keepalive\n\n"


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
    access: Access,
    timeout_seconds: float,
    late: Callable[[], DomainError],
) -> AsyncGenerator[bytes]:
    """Yield the new events of a job at each change, with keepalives between.

    `read_events` returns them, and True if they are the last. It runs on a thread, and is skipped while the database is
    unavailable. A timeout ends the stream with the `error` that `late` returns, on a thread too. So does the loss of
    the caller's `access`, which is confirmed after the events were read, and looked at before each is sent.
    """

    unsent, is_over = list[bytes](), False

    def read_confirmed() -> list[bytes]:
        nonlocal unsent, is_over
        if not is_over:
            found, is_over = read_events()
            unsent += found
        access.confirm()  # where the database goes away in between, the events stay unsent until it is back
        confirmed, unsent = unsent, []
        return confirmed

    wakeups = waiting.wakeups(
        job_id, timeout_seconds=timeout_seconds, idle_seconds=settings.EASEL.keepalive_seconds, access=access
    )
    try:
        async with contextlib.aclosing(wakeups):
            async for noticed in wakeups:
                access.check()
                if not noticed:
                    yield KEEPALIVE
                with contextlib.suppress(OperationalError, InterfaceError):
                    for part in await in_thread(read_confirmed):
                        access.check()
                        yield part
                    if is_over:
                        return
    except DomainError as error:
        yield failure(error)
        return
    yield failure(await in_thread(late))
