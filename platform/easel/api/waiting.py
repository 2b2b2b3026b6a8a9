"""Waits for jobs without holding a thread: one LISTEN connection wakes every waiter of this process."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator
from uuid import UUID

import psycopg
import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError

from core import clock
from core.threads import in_thread
from easel.api.errors import StillRunning
from easel.jobs import queries
from easel.jobs.models import Job
from easel.jobs.queue_place import queue_place
from easel.observability import metrics
from tenants.models import Tenant

log = structlog.get_logger()
RECHECK_SECONDS = 10  # the longest that a client waits for a notice that was lost with its connection
# The end of a job wakes all clients that wait for it; its progress wakes those that follow it.
CHANNELS = ("easel_finished", "easel_progress")

_ENDED = "SELECT id FROM jobs_job WHERE id = ANY(%s) AND finished_at IS NOT NULL"
# Of several clients that wait for a job, one may have disconnected: the job is not abandoned while another waits.
_RETURN = """
UPDATE jobs_job SET abandoned_at = NULL WHERE id IN (
    SELECT id FROM jobs_job
     WHERE id = ANY(%s) AND abandoned_at IS NOT NULL AND finished_at IS NULL AND cancel_requested_at IS NULL
     ORDER BY id FOR NO KEY UPDATE)
"""

_waiters: dict[str, dict[UUID, set[asyncio.Event]]] = {channel: defaultdict(set) for channel in CHANNELS}
_listener: asyncio.Task[None] | None = None


async def ends(job_id: UUID, *, timeout_seconds: float, idle_seconds: float) -> AsyncGenerator[bool]:
    """Yield True once, when the job has ended, and False at each `idle_seconds` before. End at the timeout without."""
    # `_listen` checks all waiting jobs every RECHECK_SECONDS, in case a notification was lost.
    woken = wakeups(job_id, channels=CHANNELS[:1], timeout_seconds=timeout_seconds, idle_seconds=idle_seconds)
    async with contextlib.aclosing(woken):
        async for noticed in woken:
            if noticed and await _has_ended(job_id):
                yield True
                return
            if not noticed:
                yield False
    if await _has_ended(job_id):
        yield True


async def _has_ended(job_id: UUID) -> bool:
    # The job is admitted, and an error would make the client send it again: check later instead.
    with contextlib.suppress(OperationalError, InterfaceError):
        return await in_thread(_is_final, job_id)
    return False


async def wakeups(
    job_id: UUID, *, channels: tuple[str, ...] = CHANNELS, timeout_seconds: float, idle_seconds: float = RECHECK_SECONDS
) -> AsyncGenerator[bool]:
    """Yield when it is time to read a job: at once, at each notification of it, and (False) after `idle_seconds`."""
    _ensure_listener()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds
    wake = asyncio.Event()
    wake.set()
    for channel in channels:
        _waiters[channel][job_id].add(wake)
    try:
        while True:
            noticed = wake.is_set()
            # Cleared before the caller reads the job, so that a change between two reads is not missed.
            wake.clear()
            yield noticed
            if (left := deadline - loop.time()) <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, idle_seconds)):
                    await wake.wait()
    finally:
        for channel in channels:
            _waiters[channel][job_id].discard(wake)
            if not _waiters[channel][job_id]:
                del _waiters[channel][job_id]


def followed() -> dict[UUID, int]:
    """Return the number of this process's clients that wait for the end of each job."""
    return {job_id: len(events) for job_id, events in _waiters[CHANNELS[0]].items()}


metrics.WAITING_CLIENTS.set_function(lambda: sum(followed().values()))


def still_running(*, tenant: Tenant, job_id: UUID) -> StillRunning:
    """Return the refusal of a wait that took too long, with the job's place unless the database is unavailable."""
    place = None
    with contextlib.suppress(OperationalError, InterfaceError):
        place = queue_place(queries.job_get(tenant=tenant, job_id=job_id), now=clock.now())
    return StillRunning.of(job_id, place=place)


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
                for channel in CHANNELS:
                    await connection.execute(f"LISTEN {channel}")
                for events in [*_waiters[CHANNELS[0]].values()]:  # jobs that ended while this process did not listen
                    _set(events)
                while True:
                    async for notice in connection.notifies(timeout=RECHECK_SECONDS):
                        _set(_waiters[notice.channel].get(UUID(notice.payload), set()))
                    await connection.execute(_RETURN, [list(_waiters[CHANNELS[0]])])
                    found = await connection.execute(_ENDED, [list(_waiters[CHANNELS[0]])])
                    for (job_id,) in await found.fetchall():
                        _set(_waiters[CHANNELS[0]].get(job_id, set()))
        except psycopg.OperationalError as error:
            log.warning("database_unavailable", error=repr(error))
            await asyncio.sleep(1)


def _set(events: set[asyncio.Event]) -> None:
    for event in events:
        event.set()
