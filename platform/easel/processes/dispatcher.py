"""The dispatcher process: releases queued jobs to pools that have room, and sends them to their workers.

It wakes when PostgreSQL notifies that a job was queued or finished. Any number of dispatchers may run at once.

A pool whose keys of Redis can't be used, because its workers wrote there, keeps no other pool waiting: its attempts are
sent again in later turns, while their leases last.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, cast

import redis
import structlog
from django.conf import settings
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError, ResponseError

from core.redis_client import redis_client
from core.redis_version import redis_unpatched
from easel.catalog.errors import NamespaceUnsafe
from easel.catalog.models import Pool, PoolFault
from easel.catalog.pool_faults import PoolFaults, is_shut_out
from easel.catalog.redis_users import redis_user_set
from easel.jobs import dispatch, queue, transport
from easel.jobs.models import Attempt
from easel.processes import pool_streams
from easel.processes.loop import UNAVAILABLE, run_turns

log = structlog.get_logger()
POLL_SECONDS = 0.5
# (run id of the Redis server, pool) of the Redis users that this process has set. A server that was restarted may have
# lost its users, and has another run id.
_users_set: set[tuple[str, int]] = set()
_servers_checked: set[str] = set()  # run ids
_unsent: dict[int, list[Attempt]] = {}  # released, by pool
_faults = PoolFaults()


def run(stop: threading.Event) -> None:
    """Give every pool its turn, until `stop` is set.

    A failure at any point is harmless: an attempt that was released and not sent has a lease, which expires.
    """
    channels = ("easel_queued", "easel_finished")
    run_turns(turn, process="dispatcher", stop=stop, pause_seconds=POLL_SECONDS, channels=channels)


def turn() -> list[Attempt]:
    """Release and send what fits into each pool; return the attempts. Raise `RedisError` before releasing anything."""
    client = redis_client()
    info = cast(Any, client.info("server"))
    server = info["run_id"]
    if server not in _servers_checked:
        _servers_checked.add(server)
        _warn(client, info)
    sent = []
    for pool in Pool.objects.all():
        if (server, pool.pk) not in _users_set:
            _set_user(pool)
            _users_set.add((server, pool.pk))
        sent += _sent(pool, dispatch.release)
    # What no other job wants goes to batches, after every pool has had its turn.
    for pool in queue.pools_with_waiting_batches():
        sent += _sent(pool, dispatch.release_batch)
    _faults.write(now=datetime.now(UTC))
    return sent


def _warn(client: "redis.Redis", server: dict[str, Any]) -> None:
    """Warn of a server that has known faults or no password, or that a pool could fill until there is no memory."""
    memory = cast(Any, client.info("memory"))
    if unpatched := redis_unpatched(server):
        log.warning("redis_unpatched", reason=unpatched)
    if not memory.get("maxmemory") or memory.get("maxmemory_policy") != "noeviction":
        log.warning("redis_unbounded", reason="set maxmemory, and maxmemory-policy to noeviction")
    with suppress(ResponseError):  # the platform's own user may not ask
        if {"on", "nopass"} <= set(cast(Any, client.acl_getuser("default"))["flags"]):
            log.error("redis_open", reason="set a password: whoever doesn't log in may do everything")


def _set_user(pool: Pool) -> None:
    try:
        is_on = not is_shut_out(pool, now=datetime.now(UTC))
        redis_user_set(redis_client(), pool, secret=settings.EASEL.secret_key, is_on=is_on)
    except NamespaceUnsafe as error:  # only this pool's workers cannot log in
        log.error("pool_without_redis_user", pool=pool.slug, reason=str(error))


def _sent(pool: Pool, release: Callable[..., list[Attempt]]) -> list[Attempt]:
    """Release jobs of a pool, and send their attempts."""
    now = datetime.now(UTC)
    try:
        released = release(pool=pool, now=now, lease_seconds=settings.EASEL.lease_seconds)
    except UNAVAILABLE:
        raise
    except Exception:
        log.exception("pool_turn_failed", pool=pool.slug)
        released = []
    again = [attempt for attempt in _unsent.pop(pool.pk, ()) if attempt.lease_expires_at > now]
    attempts = [*again, *released]
    try:
        transport.send(attempts)
    except (RedisError, BrokerError) as error:
        _unsent[pool.pk] = attempts
        if not _is_of_a_key(error):
            raise
        wrong = pool_streams.mend(redis_client(), [pool.namespace], now_ms=int(now.timestamp() * 1000))
        detail = "; ".join(wrong.get(pool.namespace, [ascii(error)]))
        _faults.note(pool, PoolFault.Kind.SEND, detail, now=now)
        return []
    for attempt in attempts:
        log.info("attempt_dispatched", job=str(attempt.job_id), attempt=attempt.number, pool=pool.slug)
    return attempts


def _is_of_a_key(error: Exception) -> bool:
    """Return true if Redis refused one key, of the wrong type, and is well itself. Celery wraps its errors."""
    causes = (error, error.__cause__, error.__context__)
    return any(type(cause) is ResponseError and "WRONGTYPE" in str(cause) for cause in causes)
