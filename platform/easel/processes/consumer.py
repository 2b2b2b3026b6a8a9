"""The completion consumer process: reads the report streams of all pools and applies each report.

A report is acknowledged after its transaction has committed, so a crash delivers it again and loses none. Another
consumer claims the reports that a crashed one had read. Any number of consumers may run at once.

Reports come by a Redis stream and not by a Celery task: a consumer group already redelivers what was read and not
acknowledged, for which Celery would need `acks_late` and a visibility timeout.

A pool's workers may write anything into its stream. What can't be applied is refused and noted as the pool's fault, and
the other pools' reports are applied in the same turn (`pool_streams.py`).
"""

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable
from datetime import UTC, datetime

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from redis.exceptions import RedisError

from core.redis_client import redis_client
from easel.catalog.models import Pool, PoolFault
from easel.catalog.pool_faults import PoolFaults
from easel.jobs import lifecycle
from easel.jobs.reports import report_read
from easel.jobs.transport import ask_to_cancel
from easel.processes import pool_streams
from easel.processes.image_checks import ImageChecks
from easel.processes.image_judging import ImageJudging
from easel.processes.loop import run_turns
from easel.processes.pool_streams import Entry
from inference.contract import WorkerBeat

log = structlog.get_logger()
BLOCK_MS = 1000  # a read waits this long for the first report
PENDING_MS = 20  # the same, while reports wait for a look at their images
PAUSE_SECONDS = 1.0  # before an installation without pools is looked at again
MEND_SECONDS = 5.0
AVOID_SECONDS = 1.0  # for a pool whose stream could not be read: no wait for the others' reports includes its own
TRIES_MAX = 3  # of a report for which PostgreSQL fails and then answers


def run(stop: threading.Event) -> None:
    """Apply reports as they come, until `stop` is set."""
    consumer = Consumer(f"{socket.gethostname()}-{os.getpid()}")

    def next_turn() -> bool:
        pools = consumer.readable(Pool.objects.all())
        consumer.turn(pools)
        return bool(pools)  # the read itself has waited

    run_turns(next_turn, process="completion", stop=stop, pause_seconds=PAUSE_SECONDS)


class ReportDropped(Exception):
    """The report is of an attempt that has ended, or that the pool never had. Its seconds are recorded if it had."""


class Consumer:
    """One consumer of all pools' streams; `name` is its own among all consumers."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._mended_at: dict[str, float] = {}  # namespaces, by the process's clock
        self._avoided_until: dict[str, float] = {}
        self._faults = PoolFaults()
        self._left_entries = False  # entries that were read and are not acknowledged
        self._tries: Counter[tuple[str, bytes]] = Counter()
        self._checks = ImageChecks()
        self._judging = ImageJudging()

    def readable(self, pools: Iterable[Pool]) -> list[Pool]:
        """Return the pools without those whose streams could not be read a moment ago."""
        now = time.monotonic()
        return [pool for pool in pools if now >= self._avoided_until.get(pool.namespace, 0.0)]

    def turn(self, pools: Collection[Pool]) -> int:
        """Read and apply reports; return their number. Waits up to BLOCK_MS for the first."""
        client = redis_client()
        by_namespace = {pool.namespace: pool for pool in pools}
        monotonic = time.monotonic()
        due = [name for name in by_namespace if monotonic - self._mended_at.get(name, -MEND_SECONDS) >= MEND_SECONDS]
        self._mend(by_namespace, due)
        again = pool_streams.entries_left(client, by_namespace, self._name) if self._left_entries else None
        self._left_entries = True  # unless this turn comes to its end
        # A third of a lease: the end of an attempt that a dead consumer had read is applied before the lease expires.
        idle_ms = 1000 * settings.EASEL.lease_seconds // 3
        taken = pool_streams.entries_taken(client, by_namespace, self._name, idle_ms=idle_ms)
        entries = [*(again.entries if again else ()), *taken.entries]
        wait_ms = 0 if taken.entries else PENDING_MS if entries else BLOCK_MS
        healthy = by_namespace.keys() - taken.broken
        new = pool_streams.entries_new(client, healthy, self._name, wait_ms=wait_ms)
        handled: dict[tuple[str, bytes], bool] = {}
        for entry in (*entries, *new.entries):
            if (entry.namespace, entry.id) not in handled:
                handled[entry.namespace, entry.id] = self._handle(by_namespace[entry.namespace], entry)
        self._left_entries = not all(handled.values())
        poisoned = self._mend(by_namespace, taken.broken | new.broken)
        self._avoided_until.update(dict.fromkeys(poisoned, time.monotonic() + AVOID_SECONDS))
        self._faults.write(now=datetime.now(UTC))
        return len(handled)

    def _mend(self, pools: dict[str, Pool], namespaces: Collection[str]) -> Collection[str]:
        """Make streams that are not there, and others anew; return the namespaces that had something wrong."""
        if not namespaces:
            return ()
        now = datetime.now(UTC)
        wrong = pool_streams.mend(redis_client(), namespaces, now_ms=int(now.timestamp() * 1000))
        self._mended_at.update(dict.fromkeys(namespaces, time.monotonic()))
        for namespace, texts in wrong.items():
            self._faults.note(pools[namespace], PoolFault.Kind.KEY, "; ".join(texts), now=now)
        return wrong.keys()

    def _handle(self, pool: Pool, entry: Entry) -> bool:
        """Apply or refuse one entry, and acknowledge it; return False if it must be read again.

        Raises if PostgreSQL or Redis is unavailable.
        """
        key = (entry.namespace, entry.id)
        try:
            if not self._apply(pool, entry.report or b""):
                return False
        except (OperationalError, InterfaceError) as error:
            # If PostgreSQL is the reason, this raises, and the report stays in the stream.
            _check_postgresql(error)
            # Else this report is too much for it, or a lock was taken: then it succeeds when it is read again.
            self._tries[key] += 1
            if self._tries[key] < TRIES_MAX:
                return False
            self._refuse(pool, error)
        except Exception as error:
            # A report that can never be applied must not block the others. The lease of its attempt expires.
            self._refuse(pool, error)
        self._tries.pop(key, None)
        pool_streams.acknowledge(redis_client(), entry)
        return True

    def _apply(self, pool: Pool, text: bytes) -> bool:
        """Apply a report; return False if nobody has looked at its images yet."""
        report, now = report_read(text), datetime.now(UTC)
        if isinstance(report, WorkerBeat):
            unwanted = lifecycle.beat(pool=pool, report=report, now=now, lease_seconds=settings.EASEL.lease_seconds)
            try:
                ask_to_cancel(pool, map(str, unwanted), now=now)
            except RedisError as error:
                log.warning("cancel_not_sent", pool=pool.slug, error=repr(error))  # the next beat asks again
            return True
        confirmed = self._checks.confirmed(pool, report)
        if confirmed is None:
            return False
        judged = self._judging.judged(pool, confirmed)
        if judged is None:
            return False
        now = datetime.now(UTC)
        applied = lifecycle.finish(pool=pool, report=judged, now=now, attempts_max=settings.EASEL.attempts_max)
        if applied in (lifecycle.Applied.LATE, lifecycle.Applied.UNKNOWN):
            raise ReportDropped(f"{applied.value}: attempt {report.attempt_token}")
        return True

    def _refuse(self, pool: Pool, error: Exception) -> None:
        # In ASCII, since the message may quote what PostgreSQL can't store.
        self._faults.note(pool, PoolFault.Kind.REPORT, ascii(error), now=datetime.now(UTC))


def _check_postgresql(error: Exception) -> None:
    """Raise if PostgreSQL was the reason of `error`: it has no resources left, is ending, or doesn't answer now."""
    if str(getattr(error.__cause__, "sqlstate", None)).startswith(("08", "53", "57P")):
        raise error
    connection.close_if_unusable_or_obsolete()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
