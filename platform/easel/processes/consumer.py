"""The completion consumer process: reads the report streams of all pools and applies each report.

A report leaves its stream after its transaction has committed. What a crashed consumer had taken is claimed by
another; one that lost PostgreSQL in between begins with what it has in hand. Any number may run at once.
"""

import os
import socket
import threading
from datetime import UTC, datetime
from typing import Any, cast

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections
from redis.exceptions import RedisError, ResponseError

from core.redis_client import redis_client
from easel.catalog.models import Pool
from easel.jobs import lifecycle
from easel.jobs.transport import ask_to_cancel
from inference.contract import WorkerBeat, report_from_json, reports_key

log = structlog.get_logger()
GROUP = "completion"
BLOCK_MS = 1000


def run(stop: threading.Event) -> None:
    """Until `stop`: applies reports as they come; waits out an absence of Redis or PostgreSQL."""
    consumer = f"{socket.gethostname()}-{os.getpid()}"
    interrupted = False
    while not stop.is_set():
        try:
            pools = {reports_key(pool.namespace): pool for pool in Pool.objects.all()}
            for key in pools:
                _ensure_group(key)
            if interrupted:
                turn(pools, consumer, again=True)
                interrupted = False
            turn(pools, consumer)
        except (RedisError, OperationalError, InterfaceError) as error:
            log.warning("completion_waits", error=repr(error))
            close_old_connections()
            interrupted = True
            stop.wait(1)


def turn(pools: dict[str, Pool], consumer: str, *, again: bool = False) -> int:
    """Applies what is there, waiting up to a second for the first report; returns how many there were.

    With `again` those that this consumer had taken before, and nothing new.
    """
    client = redis_client()
    entries: list[tuple[str, bytes, dict[bytes, bytes]]] = []
    # Well within a lease: an end that lies with a dead consumer should be read before its attempt is taken for lost.
    claim_idle_ms = 1000 * settings.EASEL.lease_seconds // 3
    for key in pools:
        claimed = cast(Any, client.xautoclaim(key, GROUP, consumer, claim_idle_ms, count=100))
        entries += [(key, entry_id, fields) for entry_id, fields in claimed[1]]
    if pools:
        since: Any = dict.fromkeys(pools, "0" if again else ">")
        read = cast(Any, client.xreadgroup(GROUP, consumer, since, count=100, block=BLOCK_MS))
        for key, found in read.items() if isinstance(read, dict) else read or ():
            name = key.decode() if isinstance(key, bytes) else key
            entries += [(name, entry_id, fields) for entry_id, fields in _flat(found)]
    for key, entry_id, fields in entries:
        _apply(pools[key], fields)
        with client.pipeline() as done:
            done.xack(key, GROUP, entry_id)
            done.xdel(key, entry_id)
            done.execute()
    return len(entries)


def _apply(pool: Pool, fields: dict[bytes, bytes]) -> None:
    now = datetime.now(UTC)
    try:
        report = report_from_json(fields.get(b"report", b""))
        if isinstance(report, WorkerBeat):
            unwanted = lifecycle.beat(pool=pool, report=report, now=now, lease_seconds=settings.EASEL.lease_seconds)
            ask_to_cancel(pool, map(str, unwanted), now=now)
        else:
            applied = lifecycle.finish(pool=pool, report=report, now=now, attempts_max=settings.EASEL.attempts_max)
            if applied in (lifecycle.Applied.LATE, lifecycle.Applied.UNKNOWN):
                log.warning("report_dropped", why=applied.value, attempt=report.attempt_token, pool=pool.slug)
    except (OperationalError, InterfaceError, RedisError):
        raise  # a server is away: the report stays in the stream
    except Exception:
        # A report that can never be applied must not block the rest; its attempt's lease runs out.
        log.exception("report_refused", pool=pool.slug)


def _ensure_group(key: str) -> None:
    try:
        redis_client().xgroup_create(key, GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


def _flat(found: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The entries of one stream; a reply of RESP3 wraps them in one more list."""
    return found[0] if found and isinstance(found[0], list) else found
