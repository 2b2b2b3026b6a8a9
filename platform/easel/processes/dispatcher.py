"""The dispatcher process: wakes when a job is queued or a slot is freed, and releases what fits."""

import threading
from datetime import UTC, datetime
from typing import Any, cast

import psycopg
import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError

from core.redis_client import redis_client
from easel.catalog.errors import NamespaceUnsafe
from easel.catalog.models import Pool
from easel.catalog.redis_users import redis_user_set
from easel.jobs import queue, transport
from easel.jobs.models import Attempt

log = structlog.get_logger()
POLL_SECONDS = 0.5  # how long a wake-up that was lost can go unnoticed
# Pools whose user this run of Redis has; one that was restarted may have lost them.
_welcomed: set[tuple[str, int]] = set()


def run(stop: threading.Event) -> None:
    """Until `stop`: waits for PostgreSQL's notice of a queued or finished job, then gives every pool its turn."""
    while not stop.is_set():
        try:
            with psycopg.connect(settings.EASEL.database_url, autocommit=True) as listener:
                listener.execute("LISTEN easel_queued")
                listener.execute("LISTEN easel_finished")
                while not stop.is_set():
                    if turn():
                        continue  # there may be more than one turn gives out
                    for _ in listener.notifies(timeout=POLL_SECONDS, stop_after=1):
                        pass
        except (psycopg.OperationalError, OperationalError, InterfaceError, BrokerError, RedisError) as error:
            # Leases make it safe to go on: what was released and not sent comes back to the queue.
            log.warning("dispatcher_waits", error=repr(error))
            close_old_connections()
            stop.wait(1)


def turn() -> list[Attempt]:
    """One round over the pools; returns what was sent. Raises `RedisError` before anything is released."""
    client = redis_client()
    server = cast(Any, client.info("server"))["run_id"]
    sent = []
    for pool in Pool.objects.all():
        if (server, pool.pk) not in _welcomed:
            try:
                redis_user_set(client, pool, secret=settings.EASEL.secret_key)
            except NamespaceUnsafe as error:  # its workers can't log in; the other pools' still can
                log.error("pool_without_redis_user", pool=pool.slug, reason=str(error))
            _welcomed.add((server, pool.pk))
        attempts = queue.release(pool=pool, now=datetime.now(UTC), lease_seconds=settings.EASEL.lease_seconds)
        transport.send(attempts)
        for attempt in attempts:
            log.info("attempt_dispatched", job=str(attempt.job_id), attempt=attempt.number, pool=pool.slug)
        sent += attempts
    return sent
