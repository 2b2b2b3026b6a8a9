"""The dispatcher process: releases queued jobs to pools that have room, and sends them to their workers.

It wakes when PostgreSQL notifies that a job was queued or finished. Any number of dispatchers may run at once.
"""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import structlog
from django.conf import settings

from core.redis_client import redis_client
from easel.catalog.errors import NamespaceUnsafe
from easel.catalog.models import Pool
from easel.catalog.redis_users import redis_user_set
from easel.jobs import dispatch, queue, transport
from easel.jobs.models import Attempt
from easel.processes.loop import run_turns

log = structlog.get_logger()
POLL_SECONDS = 0.5
# (run id of the Redis server, pool) of the Redis users that this process has set. A server that was restarted may have
# lost its users, and has another run id.
_users_set: set[tuple[str, int]] = set()


def run(stop: threading.Event) -> None:
    """Give every pool its turn, until `stop` is set.

    A failure at any point is harmless: an attempt that was released and not sent has a lease, which expires.
    """
    channels = ("easel_queued", "easel_finished")
    run_turns(turn, process="dispatcher", stop=stop, pause_seconds=POLL_SECONDS, channels=channels)


def turn() -> list[Attempt]:
    """Release and send what fits into each pool; return the attempts. Raise `RedisError` before releasing anything."""
    client = redis_client()
    server = cast(Any, client.info("server"))["run_id"]
    sent = []
    for pool in Pool.objects.all():
        if (server, pool.pk) not in _users_set:
            try:
                redis_user_set(client, pool, secret=settings.EASEL.secret_key)
            except NamespaceUnsafe as error:  # only this pool's workers cannot log in
                log.error("pool_without_redis_user", pool=pool.slug, reason=str(error))
            _users_set.add((server, pool.pk))
        sent += _sent(pool, dispatch.release)
    # What no other job wants goes to batches, after every pool has had its turn.
    for pool in queue.pools_with_waiting_batches():
        sent += _sent(pool, dispatch.release_batch)
    return sent


def _sent(pool: Pool, release: Callable[..., list[Attempt]]) -> list[Attempt]:
    """Release jobs of a pool, and send their attempts."""
    attempts = release(pool=pool, now=datetime.now(UTC), lease_seconds=settings.EASEL.lease_seconds)
    transport.send(attempts)
    for attempt in attempts:
        log.info("attempt_dispatched", job=str(attempt.job_id), attempt=attempt.number, pool=pool.slug)
    return attempts
