"""Faults of pools: what the workers of a pool did to its part of Redis, noted for operators.

A hostile worker repeats its faults as fast as it can. `PoolFaults` therefore counts them in its process, and writes one
row and one log line per pool and kind in NOTE_SECONDS.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.db import transaction
from django.db.models import F

from easel.catalog.models import Pool, PoolFault

log = structlog.get_logger()
NOTE_SECONDS = 60.0
DETAIL_MAX = 200
SHUT_SECONDS, SHUT_SECONDS_MAX = 60, 3600
CALM_SECONDS = 3600  # after so long in peace a pool is shut out as if for the first time


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


def pool_shut_out(pool: Pool, kind: PoolFault.Kind, detail: str, *, now: datetime) -> None:
    """Note that a pool's login is off: for a minute, or for twice as long as the last time if that is not long ago."""
    before = PoolFault.objects.filter(pool=pool, shut_seconds__gt=0).order_by("-last_at").first()
    seconds = SHUT_SECONDS
    if before is not None and now - before.last_at < timedelta(seconds=before.shut_seconds + CALM_SECONDS):
        seconds = min(2 * before.shut_seconds, SHUT_SECONDS_MAX)
    fault_write(pool, kind, detail, now=now)
    until = now + timedelta(seconds=seconds)
    PoolFault.objects.filter(pool=pool, kind=kind).update(shut_until=until, shut_seconds=seconds)
    log.error("pool_shut_out", pool=pool.slug, why=kind.value, detail=detail, seconds=seconds)


def is_shut_out(pool: Pool, *, now: datetime) -> bool:
    """Return true if the pool's login must be off."""
    return PoolFault.objects.filter(pool=pool, shut_until__gt=now).exists()


def pools_to_let_in(*, now: datetime) -> list[PoolFault]:
    """Return the faults of pools whose time is over, and that are not shut out for another one."""
    over = PoolFault.objects.filter(shut_until__lte=now).exclude(pool__faults__shut_until__gt=now)
    return list(over.select_related("pool"))


def pool_let_in(fault: PoolFault, *, now: datetime) -> None:
    """Note that the login of the fault's pool is on again."""
    PoolFault.objects.filter(pk=fault.pk, shut_until__lte=now).update(shut_until=None)
    log.warning("pool_let_in", pool=fault.pool.slug)
