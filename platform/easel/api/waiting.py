"""Waits for jobs to finish without holding a thread: one LISTEN connection wakes every waiter of this process."""

import asyncio
import contextlib
from collections import defaultdict
from uuid import UUID

import psycopg
import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError

from easel.api.threads import in_thread
from easel.generation.models import Job

log = structlog.get_logger()
RECHECK_SECONDS = 10  # how long a notice lost with its connection can keep a client waiting

_waiters: dict[UUID, set[asyncio.Event]] = defaultdict(set)
_listener: asyncio.Task[None] | None = None


async def finished(job_id: UUID, *, timeout_seconds: float) -> bool:
    """True once the job has ended; False if it hasn't within the time."""
    _ensure_listener()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds
    wake = asyncio.Event()
    _waiters[job_id].add(wake)
    try:
        while True:
            wake.clear()
            # Looked at after enlisting and clearing, so that an end between two looks is not missed. A database that
            # is away for a moment costs a later look: the job is admitted, and an error would have it sent again.
            with contextlib.suppress(OperationalError, InterfaceError):
                if await in_thread(_is_final, job_id):
                    return True
            if (left := deadline - loop.time()) <= 0:
                return False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, RECHECK_SECONDS)):
                    await wake.wait()
    finally:
        _waiters[job_id].discard(wake)
        if not _waiters[job_id]:
            del _waiters[job_id]


def _is_final(job_id: UUID) -> bool:
    return Job.objects.filter(id=job_id, finished_at__isnull=False).exists()


def _ensure_listener() -> None:
    global _listener
    if _listener is None or _listener.done() or _listener.get_loop() is not asyncio.get_running_loop():
        _listener = asyncio.get_running_loop().create_task(_listen())


async def _listen() -> None:
    while True:
        try:
            connection = await psycopg.AsyncConnection.connect(settings.EASEL.database_url, autocommit=True)
            async with connection:
                await connection.execute("LISTEN easel_finished")
                for events in list(_waiters.values()):  # what ended while nobody listened
                    _set(events)
                async for notice in connection.notifies():
                    _set(_waiters.get(UUID(notice.payload), set()))
        except psycopg.OperationalError as error:
            log.warning("listener_waits", error=repr(error))
            await asyncio.sleep(1)


def _set(events: set[asyncio.Event]) -> None:
    for event in events:
        event.set()
