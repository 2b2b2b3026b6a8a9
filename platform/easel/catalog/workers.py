"""Records workers' beats: which workers are alive, and their totals by day.

The operator runs the workers of shared pools, and their beats are believed. A tenant may run those of its dedicated
pool, and it pays for the time that they are up. Of their beats only what our own clock confirms is recorded:

- A worker is up from a beat to its next one. A start, by a new name or a new `started_at`, counts for as long as one
  beat gets a worker jobs and leases, so that renaming and restarting a worker makes it no cheaper.
- A start counts for `LOADING_MAX` before its first beat at most, and a day has no more seconds than have passed of it.
- Its device was busy for no longer than it was up, and its GPU class is the pool's.
- A pool has `NAMES_MAX` workers at a time and `NAMES_OF_A_DAY_MAX` on a day; a beat of one more is refused.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from django.conf import settings
from django.db import transaction
from django.db.models import Max

from easel.catalog.models import Pool, PoolOutage, Worker, WorkerDay
from inference.contract import WorkerBeat

WORKER_SILENCE_SECONDS = 10  # after ten missed beats a worker gets no new work
NAMES_MAX, NAMES_OF_A_DAY_MAX = 64, 256  # of a dedicated pool's workers
LOADING_MAX = timedelta(hours=1)  # of a model, before the first beat
_PLACES = Decimal("1e-15")
_INSTANT = timedelta(microseconds=1)
_TOTALS = ("busy_seconds", "attributed_seconds", "load_seconds")


class TooManyWorkers(ValueError):
    """A dedicated pool reports more names of workers than it may have."""


@transaction.atomic
def worker_seen(*, pool: Pool, report: WorkerBeat, now: datetime) -> None:
    """Record a beat: adds the up time since the worker's last beat to each day (UTC), the other totals to today.

    A repeated or late beat adds nothing, because the totals of one process only grow. A beat of a dead process is
    ignored once its successor of the same name has sent one. Raises `TooManyWorkers`.
    """
    is_believed = pool.tenant_id is None
    gpu_class = report.gpu_class if is_believed else pool.gpu_class
    started_at = datetime.fromtimestamp(report.started_at, UTC)
    workers = Worker.objects.select_for_update().filter(pool=pool, name=report.worker)
    known = workers.first()
    if known is None and not is_believed:
        _room_make(pool, report.worker, now)
    if known is None or known.beat_at < now - timedelta(seconds=WORKER_SILENCE_SECONDS):
        _outage_record(pool, now)
    # The worker's clock may be ahead of ours.
    since = min(started_at, now) if is_believed else _start_confirmed(pool, started_at, now)
    if known is None:  # another consumer may insert the same row at this moment
        new = Worker(pool=pool, name=report.worker, started_at=started_at, beat_at=since, **dict.fromkeys(_TOTALS, 0.0))
        new.gpu_class, new.concurrency = gpu_class, report.concurrency
        Worker.objects.bulk_create([new], ignore_conflicts=True)
        known = workers.get()
    reported = {name: getattr(report, name) for name in _TOTALS}
    before = {name: getattr(known, name) for name in _TOTALS}
    if known.started_at > started_at:
        if is_believed:
            return
        # Its totals are a dead process's, but somebody is up under this name.
        started_at, reported, since = known.started_at, before, min(known.beat_at, now)
    elif known.started_at < started_at:
        before = dict.fromkeys(_TOTALS, 0.0)
        since = since if is_believed else max(since, min(known.beat_at, now))
    else:
        since = min(known.beat_at, now)
    totals = {name: max(before[name], reported[name]) for name in _TOTALS}
    # Read now: the caller's `pool` may be older than a change of its cost.
    hour_cost = Pool.objects.values_list("gpu_hour_cost", flat=True).get(pk=pool.pk)
    for on, passed in _by_day(since, now):
        day, _ = WorkerDay.objects.get_or_create(
            pool=pool, worker=report.worker, day=on, defaults={"gpu_class": gpu_class}
        )
        day.gpu_class = gpu_class
        up = passed if is_believed else min(passed, _unrecorded(day, now))
        # Rounded at each step, so that the sum stays exact to the microsecond, in which it is charged.
        day.up_seconds = round(day.up_seconds + up.total_seconds(), 6)
        day.cost += (Decimal(up // _INSTANT) * hour_cost / 3_600_000_000).quantize(_PLACES)
        if on == now.astimezone(UTC).date():
            if not is_believed:
                totals = _totals_confirmed(day, before, totals)
            for name in _TOTALS:
                setattr(day, name, getattr(day, name) + totals[name] - before[name])
        day.save()
    known.gpu_class, known.concurrency = gpu_class, report.concurrency
    known.model_version = report.model_version[:200]
    known.started_at, known.beat_at = started_at, max(known.beat_at, now)
    for name in _TOTALS:
        setattr(known, name, totals[name])
    known.save()


def _room_make(pool: Pool, name: str, now: datetime) -> None:
    """Make room for one more worker of a dedicated pool. Raises `TooManyWorkers`."""
    Pool.objects.select_for_update(no_key=True).get(pk=pool.pk)  # for one new name at a time
    today = WorkerDay.objects.filter(pool=pool, day=now.astimezone(UTC).date()).exclude(worker=name)
    if today.count() >= NAMES_OF_A_DAY_MAX:
        raise TooManyWorkers(f"the pool had {NAMES_OF_A_DAY_MAX} names of workers today")
    workers = Worker.objects.filter(pool=pool)
    if (excess := workers.count() - NAMES_MAX + 1) > 0:
        silent = workers.filter(beat_at__lt=now - timedelta(seconds=WORKER_SILENCE_SECONDS)).order_by("beat_at")
        longest = list(silent.values_list("pk", flat=True)[:excess])
        if len(longest) < excess:
            raise TooManyWorkers(f"the pool has {NAMES_MAX} live workers")
        Worker.objects.filter(pk__in=longest).delete()


def _start_confirmed(pool: Pool, started_at: datetime, now: datetime) -> datetime:
    """Return since when a dedicated pool's worker counts as up that sends its first beat now."""
    one_beat = timedelta(seconds=WORKER_SILENCE_SECONDS + settings.EASEL.lease_seconds)
    return min(now, max(pool.created_at, now - LOADING_MAX, min(started_at, now - one_beat)))


def _unrecorded(day: WorkerDay, now: datetime) -> timedelta:
    """Return how much of a worker's day has passed and isn't recorded as up time yet."""
    passed = min(now - datetime.combine(day.day, time(), UTC), timedelta(days=1))
    return max(passed - timedelta(seconds=day.up_seconds), timedelta())


def _totals_confirmed(day: WorkerDay, before: Mapping[str, float], totals: Mapping[str, float]) -> dict[str, float]:
    """Return the totals that fit into the day's up time. What doesn't may fit at a later beat."""

    def confirmed(name: str, seconds_max: float) -> float:
        recorded: float = getattr(day, name)
        return max(before[name], min(totals[name], before[name] + seconds_max - recorded))

    load = confirmed("load_seconds", day.up_seconds - max(day.busy_seconds, day.attributed_seconds))
    busy_max = day.up_seconds - (day.load_seconds + load - before["load_seconds"])
    found = {name: confirmed(name, busy_max) for name in ("busy_seconds", "attributed_seconds")}
    return {**found, "load_seconds": load}


def outage_began_at(pool: Pool) -> datetime:
    """Return when the pool's last live worker fell silent, if it has no live worker now."""
    beat_at: datetime | None = Worker.objects.filter(pool=pool).aggregate(Max("beat_at"))["beat_at__max"]
    return pool.created_at if beat_at is None else beat_at + timedelta(seconds=WORKER_SILENCE_SECONDS)


def _outage_record(pool: Pool, now: datetime) -> None:
    """Record the outage of a pool that a worker's beat ends now; do nothing while another worker is live."""
    began_at = outage_began_at(pool)
    if began_at < now:
        PoolOutage.objects.create(pool=pool, began_at=began_at, ended_at=now)


def _by_day(since: datetime, until: datetime) -> Iterator[tuple[date, timedelta]]:
    """Split a period into days (UTC), each with the part of the period that falls into it."""
    start = since.astimezone(UTC)
    while start.date() < until.astimezone(UTC).date():
        midnight = datetime.combine(start.date() + timedelta(days=1), time(), UTC)
        yield start.date(), midnight - start
        start = midnight
    yield start.date(), until - start
