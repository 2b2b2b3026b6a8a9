"""Waits for jobs without holding a thread: one LISTEN connection wakes every waiter of this process.

Any role that can log in to the database may notify its channels. So a notification is only a hint: the listener reads
the rows of the jobs that it names, and wakes who waits for what it read.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

import psycopg
import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError
from psycopg import sql

from core import clock
from core.notifications import Flooded, NoticeMeter
from core.threads import in_thread
from easel.api.access import CHANNEL as ACCESS_CHANGED
from easel.api.access import Access
from easel.api.access import changed as access_changed
from easel.api.errors import StillRunning
from easel.jobs import queries
from easel.jobs.models import Job
from easel.jobs.queue_place import queue_place
from easel.observability import metrics
from tenants.models import Tenant

log = structlog.get_logger()
RECHECK_SECONDS = 10  # the longest that a client waits for a notice that was lost with its connection
LISTEN_AGAIN_SECONDS = 1.0  # after a connection was lost, or closed because of too many notifications
# The end of a job wakes all clients that wait for it; its progress wakes those that follow it.
CHANNELS = FINISHED, PROGRESS = "easel_finished", "easel_progress"

_ENDED = "SELECT id FROM jobs_job WHERE id = ANY(%s) AND finished_at IS NOT NULL"
# Of several clients that wait for a job, one may have disconnected: the job is not abandoned while another waits.
_RETURN = """
UPDATE jobs_job SET abandoned_at = NULL WHERE id IN (
    SELECT id FROM jobs_job
     WHERE id = ANY(%s) AND abandoned_at IS NOT NULL AND finished_at IS NULL AND cancel_requested_at IS NULL
     ORDER BY id FOR NO KEY UPDATE)
"""

# What a follower sees of a job: `xmin` is the transaction that wrote the row last.
_VERSIONS = """
SELECT job.id, format('%%s %%s', job.xmin, (SELECT string_agg(xmin::text, ' ') FROM jobs_attempt WHERE job_id = job.id))
  FROM jobs_job AS job WHERE job.id = ANY(%s)
"""
# Looking at what notifications name takes a fifth of the time at most, however many there are.
_REST_PER_LOOK = 4

_waiters: dict[str, dict[UUID, set[asyncio.Event]]] = {channel: defaultdict(set) for channel in CHANNELS}
_versions: dict[UUID, str] = {}  # of followed jobs, as their followers were woken last
_listener: asyncio.Task[None] | None = None


async def ends(
    job_id: UUID, *, timeout_seconds: float, idle_seconds: float, access: Access | None = None
) -> AsyncGenerator[bool]:
    """Yield True once, when the job has ended, and False at each `idle_seconds` before. End at the timeout without.

    Raises the refusal as soon as the caller loses its `access`.
    """
    # `_listen` checks all waiting jobs every RECHECK_SECONDS, in case a notification was lost.
    woken = wakeups(
        job_id, channels=(FINISHED,), timeout_seconds=timeout_seconds, idle_seconds=idle_seconds, access=access
    )
    async with contextlib.aclosing(woken):
        async for noticed in woken:
            if access is not None:
                access.check()
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
    job_id: UUID,
    *,
    channels: tuple[str, ...] = CHANNELS,
    timeout_seconds: float,
    idle_seconds: float = RECHECK_SECONDS,
    access: Access | None = None,
) -> AsyncGenerator[bool]:
    """Yield when it is time to read a job: at once, at each notification of it, and (False) after `idle_seconds`.

    Yield also when the caller loses its `access`.
    """
    _ensure_listener()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds
    wake = asyncio.Event()
    wake.set()
    for channel in channels:
        _waiters[channel][job_id].add(wake)
    if access is not None:
        access.wakes.add(wake)
        access.open()
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
        if access is not None:
            access.wakes.discard(wake)
        for channel in channels:
            _waiters[channel][job_id].discard(wake)
            if not _waiters[channel][job_id]:
                del _waiters[channel][job_id]


def followed() -> dict[UUID, int]:
    """Return the number of this process's clients that wait for the end of each job."""
    return {job_id: len(events) for job_id, events in _waiters[FINISHED].items()}


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
                await _look_when_notified(connection)
        except psycopg.OperationalError as error:
            log.warning("database_unavailable", error=repr(error))
        except Flooded:
            log.warning("notifications_flooded", process="api")
        except Exception:  # whatever a notification brought: clients wait for their jobs here
            log.exception("listener_failed")
        await asyncio.sleep(LISTEN_AGAIN_SECONDS)


async def _look_when_notified(connection: psycopg.AsyncConnection[Any]) -> None:
    """Look at the jobs that notifications name, and every RECHECK_SECONDS at all. Raises `Flooded`."""
    for channel in (*CHANNELS, ACCESS_CHANGED):
        await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
    loop, meter = asyncio.get_running_loop(), NoticeMeter()
    rechecked_at = -float("inf")
    while True:
        began = loop.time()
        if began - rechecked_at >= RECHECK_SECONDS:
            rechecked_at = began
            await connection.execute(_RETURN, [list(_waiters[FINISHED])])
            named = {job_id for waiters in _waiters.values() for job_id in waiters}
        if named:
            await _look(connection, named)
            await asyncio.sleep(_REST_PER_LOOK * (loop.time() - began))
        named = set()
        wait_seconds = max(0.0, rechecked_at + RECHECK_SECONDS - loop.time())
        async with contextlib.aclosing(connection.notifies(timeout=wait_seconds, stop_after=1)) as notices:
            async for notice in notices:
                meter.count(notice.payload)
                if notice.channel == ACCESS_CHANGED:
                    access_changed()
                with contextlib.suppress(ValueError):  # anybody can notify a channel of anything
                    job_id = UUID(notice.payload)
                    if any(job_id in waiters for waiters in _waiters.values()):
                        named.add(job_id)


async def _look(connection: psycopg.AsyncConnection[Any], job_ids: set[UUID]) -> None:
    """Wake who waits for the end of one of these jobs that has ended, and the followers of one that has changed."""
    if waiting := [job_id for job_id in job_ids if job_id in _waiters[FINISHED]]:
        for (job_id,) in await (await connection.execute(_ENDED, [waiting])).fetchall():
            _set(_waiters[FINISHED].get(job_id, set()))
    for job_id in _versions.keys() - _waiters[PROGRESS].keys():
        del _versions[job_id]
    if followed := [job_id for job_id in job_ids if job_id in _waiters[PROGRESS]]:
        for job_id, version in await (await connection.execute(_VERSIONS, [followed])).fetchall():
            if version != _versions.get(job_id) and job_id in _waiters[PROGRESS]:
                _versions[job_id] = version
                _set(_waiters[PROGRESS][job_id])


def _set(events: set[asyncio.Event]) -> None:
    for event in events:
        event.set()
