"""Records workers' beats: which workers are alive, and their totals by day."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from django.db import transaction
from django.db.models import Max

from easel.catalog.models import Pool, PoolOutage, Worker, WorkerDay
from inference.contract import WorkerBeat

WORKER_SILENCE_SECONDS = 10  # after ten missed beats a worker gets no new work
_PLACES = Decimal("1e-15")
_INSTANT = timedelta(microseconds=1)
_TOTALS = ("busy_seconds", "attributed_seconds", "load_seconds")


@transaction.atomic
def worker_seen(*, pool: Pool, report: WorkerBeat, now: datetime) -> None:
    """Record a beat: adds the up time since the worker's last beat to each day (UTC), the other totals to today.

    A repeated or late beat adds nothing, because the totals of one process only grow. A beat of a dead process is
    ignored once its successor of the same name has sent one.
    """
    started_at = datetime.fromtimestamp(report.started_at, UTC)
    since = min(started_at, now)  # the worker's clock may be ahead of ours
    workers = Worker.objects.select_for_update().filter(pool=pool, name=report.worker)
    known = workers.first()
    if known is None or known.beat_at < now - timedelta(seconds=WORKER_SILENCE_SECONDS):
        _outage_record(pool, now)
    if known is None:  # another consumer may insert the same row at this moment
        new = Worker(pool=pool, name=report.worker, started_at=started_at, beat_at=since, **dict.fromkeys(_TOTALS, 0.0))
        new.gpu_class, new.concurrency = report.gpu_class, report.concurrency
        Worker.objects.bulk_create([new], ignore_conflicts=True)
        known = workers.get()
    if known.started_at > started_at:
        return
    if known.started_at < started_at:
        before = dict.fromkeys(_TOTALS, 0.0)
    else:
        before = {name: getattr(known, name) for name in _TOTALS}
        since = min(known.beat_at, now)
    totals = {name: max(before[name], getattr(report, name)) for name in _TOTALS}
    known.gpu_class, known.concurrency = report.gpu_class, report.concurrency
    known.model_version = report.model_version[:200]
    known.started_at, known.beat_at = started_at, max(known.beat_at, now)
    for name in _TOTALS:
        setattr(known, name, totals[name])
    known.save()
    # Read now: the caller's `pool` may be older than a change of its cost.
    hour_cost = Pool.objects.values_list("gpu_hour_cost", flat=True).get(pk=pool.pk)
    for on, up in _by_day(since, now):
        day, _ = WorkerDay.objects.get_or_create(
            pool=pool, worker=report.worker, day=on, defaults={"gpu_class": report.gpu_class}
        )
        day.gpu_class = report.gpu_class
        # Rounded at each step, so that the sum stays exact to the microsecond, in which it is charged.
        day.up_seconds = round(day.up_seconds + up.total_seconds(), 6)
        day.cost += (Decimal(up // _INSTANT) * hour_cost / 3_600_000_000).quantize(_PLACES)
        if on == now.astimezone(UTC).date():
            for name in _TOTALS:
                setattr(day, name, getattr(day, name) + totals[name] - before[name])
        day.save()


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
