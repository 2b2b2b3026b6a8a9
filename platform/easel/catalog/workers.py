"""What workers say of themselves: who lives, and what each did by day."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from django.db import transaction

from easel.catalog.models import Pool, Worker, WorkerDay
from inference.contract import WorkerBeat

_PLACES = Decimal("1e-15")
_INSTANT = timedelta(microseconds=1)
_TOTALS = ("busy_seconds", "attributed_seconds", "load_seconds")


@transaction.atomic
def worker_seen(*, pool: Pool, report: WorkerBeat, now: datetime) -> None:
    """Records a beat, adds what the worker did since its last one to the day (UTC) of this one, and to each day the
    time that it was up in it.

    A beat repeated or overtaken adds nothing: totals of one process only grow, and one that a process left behind
    when it died is dropped once its successor has beaten.
    """
    started_at = datetime.fromtimestamp(report.started_at, UTC)
    since = min(started_at, now)  # the worker's clock may be ahead of ours
    workers = Worker.objects.select_for_update().filter(pool=pool, name=report.worker)
    known = workers.first()
    if known is None:  # as another consumer may find at the same moment
        Worker.objects.bulk_create([_begun(pool, report, started_at, since)], ignore_conflicts=True)
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
    # As it is now, not as the caller's pool remembers it.
    hour_cost = Pool.objects.values_list("gpu_hour_cost", flat=True).get(pk=pool.pk)
    for on, up in _by_day(since, now):
        day, _ = WorkerDay.objects.get_or_create(
            pool=pool, worker=report.worker, day=on, defaults={"gpu_class": report.gpu_class}
        )
        day.gpu_class = report.gpu_class
        # Rounded at each step, so that what is charged by the microsecond stays exact.
        day.up_seconds = round(day.up_seconds + up.total_seconds(), 6)
        day.cost += (Decimal(up // _INSTANT) * hour_cost / 3_600_000_000).quantize(_PLACES)
        if on == now.astimezone(UTC).date():
            for name in _TOTALS:
                setattr(day, name, getattr(day, name) + totals[name] - before[name])
        day.save()


def _by_day(since: datetime, until: datetime) -> Iterator[tuple[date, timedelta]]:
    """The days (UTC) of a time, with how much of it is in each."""
    now = since.astimezone(UTC)
    while now.date() < until.astimezone(UTC).date():
        midnight = datetime.combine(now.date() + timedelta(days=1), time(), UTC)
        yield now.date(), midnight - now
        now = midnight
    yield now.date(), until - now


def _begun(pool: Pool, report: WorkerBeat, started_at: datetime, beat_at: datetime) -> Worker:
    """A worker that has done nothing yet."""
    return Worker(
        pool=pool,
        name=report.worker,
        gpu_class=report.gpu_class,
        concurrency=report.concurrency,
        started_at=started_at,
        beat_at=beat_at,
        **dict.fromkeys(_TOTALS, 0.0),
    )
