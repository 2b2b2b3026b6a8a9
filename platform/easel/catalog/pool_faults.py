"""Faults of pools: what the workers of a pool did to its part of Redis, noted for operators.

A hostile worker repeats its faults as fast as it can. `PoolFaults` therefore counts them in its process, and writes one
row and one log line per pool and kind in NOTE_SECONDS.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog
from django.db import transaction
from django.db.models import F

from easel.catalog.models import Pool, PoolFault

log = structlog.get_logger()
NOTE_SECONDS = 60.0
DETAIL_MAX = 200


@dataclass(slots=True)
class _Unwritten:
    pool: Pool
    kind: PoolFault.Kind
    detail: str
    count: int = 0
    written_at: float | None = None  # by the process's clock


class PoolFaults:
    """Faults that one process noted."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._found: dict[tuple[int, PoolFault.Kind], _Unwritten] = {}

    def note(self, pool: Pool, kind: PoolFault.Kind, detail: str, *, now: datetime) -> None:
        """Count a fault. `detail` says what was wrong, in ASCII."""
        found = self._found.setdefault((pool.pk, kind), _Unwritten(pool, kind, detail))
        found.count += 1
        found.detail = detail
        self.write(now=now)

    def write(self, *, now: datetime) -> None:
        """Write the faults whose turn it is."""
        for found in self._found.values():
            since = None if found.written_at is None else self._clock() - found.written_at
            if found.count and (since is None or since >= NOTE_SECONDS):
                fault_write(found.pool, found.kind, found.detail, count=found.count, now=now)
                found.count, found.written_at = 0, self._clock()


@transaction.atomic
def fault_write(pool: Pool, kind: PoolFault.Kind, detail: str, *, count: int = 1, now: datetime) -> None:
    """Add to the pool's row of this kind, and log it."""
    fault, _ = PoolFault.objects.get_or_create(pool=pool, kind=kind, defaults={"count": 0, "last_at": now})
    PoolFault.objects.filter(pk=fault.pk).update(count=F("count") + count, detail=detail[:DETAIL_MAX], last_at=now)
    log.error("pool_fault", pool=pool.slug, kind=kind.value, count=count, detail=detail[:DETAIL_MAX])
