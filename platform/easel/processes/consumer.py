"""The completion consumer process: reads the report streams of all pools and applies each report.

A report is acknowledged after its transaction has committed, so a crash delivers it again and loses none. Another
consumer claims the reports that a crashed one had read. Any number of consumers may run at once.

Reports come by a Redis stream and not by a Celery task: a consumer group already redelivers what was read and not
acknowledged, for which Celery would need `acks_late` and a visibility timeout.
"""

import os
import socket
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError
from redis.exceptions import RedisError, ResponseError

from core.redis_client import redis_client
from easel.catalog.models import Pool
from easel.catalog.workers import TooManyWorkers
from easel.jobs import lifecycle
from easel.jobs.reports import ReportRefused, report_read
from easel.jobs.transport import ask_to_cancel
from easel.processes.loop import run_turns
from inference.contract import WorkerBeat, reports_key

log = structlog.get_logger()
_refusals: set[tuple[int, str]] = set()  # that were logged
GROUP = "completion"
BLOCK_MS = 1000  # a read waits this long for the first report
PAUSE_SECONDS = 1.0  # before an installation without pools is looked at again


def run(stop: threading.Event) -> None:
    """Apply reports as they come, until `stop` is set."""
    consumer = f"{socket.gethostname()}-{os.getpid()}"
    was_interrupted = False

    def next_turn() -> bool:
        nonlocal was_interrupted
        pools = {reports_key(pool.namespace): pool for pool in Pool.objects.all()}
        for key in pools:
            _ensure_group(key)
        if was_interrupted:
            turn(pools, consumer, again=True)
        was_interrupted = True  # unless this turn comes to its end
        turn(pools, consumer)
        was_interrupted = False
        return bool(pools)  # the read itself has waited

    run_turns(next_turn, process="completion", stop=stop, pause_seconds=PAUSE_SECONDS)


def turn(pools: Mapping[str, Pool], consumer: str, *, again: bool = False) -> int:
    """Read and apply reports; return their number. Waits up to BLOCK_MS for the first.

    With `again` it reads those that this consumer had read before and not acknowledged, and nothing new.
    """
    client = redis_client()
    entries: list[tuple[str, bytes, dict[bytes, bytes]]] = []
    # A third of a lease: the end of an attempt that a dead consumer had read must be applied before the lease expires.
    claim_idle_ms = 1000 * settings.EASEL.lease_seconds // 3
    for key in pools:
        claimed = cast(Any, client.xautoclaim(key, GROUP, consumer, claim_idle_ms, count=100))
        entries += [(key, entry_id, fields) for entry_id, fields in claimed[1]]
    if pools:
        since: Any = dict.fromkeys(pools, "0" if again else ">")
        read = cast(Any, client.xreadgroup(GROUP, consumer, since, count=100, block=BLOCK_MS))
        for key, found in read.items() if isinstance(read, dict) else read or ():
            name = key.decode() if isinstance(key, bytes) else key
            entries += [(name, entry_id, fields) for entry_id, fields in _stream_entries(found)]
    for key, entry_id, fields in entries:
        _apply(pools[key], fields)
        with client.pipeline() as acknowledgement:
            acknowledgement.xack(key, GROUP, entry_id)
            acknowledgement.xdel(key, entry_id)
            acknowledgement.execute()
    return len(entries)


def _apply(pool: Pool, fields: dict[bytes, bytes]) -> None:
    now = datetime.now(UTC)
    try:
        report = report_read(fields.get(b"report", b""))
        if isinstance(report, WorkerBeat):
            unwanted = lifecycle.beat(pool=pool, report=report, now=now, lease_seconds=settings.EASEL.lease_seconds)
            ask_to_cancel(pool, map(str, unwanted), now=now)
        else:
            applied = lifecycle.finish(pool=pool, report=report, now=now, attempts_max=settings.EASEL.attempts_max)
            if applied in (lifecycle.Applied.LATE, lifecycle.Applied.UNKNOWN):
                log.warning("report_dropped", why=applied.value, attempt=report.attempt_token, pool=pool.slug)
    except (OperationalError, InterfaceError, RedisError):
        raise  # a server is unavailable: the report stays in the stream
    except (ReportRefused, TooManyWorkers) as error:
        _refuse(pool, str(error))
    except Exception:
        # A report that can never be applied must not block the others. The lease of its attempt expires.
        log.exception("report_refused", pool=pool.slug)


def _refuse(pool: Pool, why: str) -> None:
    """Log why a report was refused, once per pool and reason: a hostile worker may send a thousand a second."""
    if (pool.pk, why) not in _refusals:
        _refusals.add((pool.pk, why))
        log.warning("report_refused", pool=pool.slug, why=why)


def _ensure_group(key: str) -> None:
    try:
        redis_client().xgroup_create(key, GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


def _stream_entries(found: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Return the entries of one stream. A reply in RESP3 wraps them in one more list than a reply in RESP2."""
    return found[0] if found and isinstance(found[0], list) else found
