"""Explains why a job waited: each wait between its admission and an attempt, divided into its reasons.

A reason that is recorded comes first: the pool had no live worker (`PoolOutage`), the tenant ran as many jobs as it may
(`capped_since`), or another quarantined job ran. In the rest of the wait the pool was full. Then each time up to the
next dispatch counts for whoever got that place: other tenants, other jobs of the same tenant, or at last this job.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import connection, models
from django.db.models import Q

from easel.catalog.models import PoolOutage
from easel.catalog.workers import outage_began_at
from easel.jobs.models import Attempt, Job, State, shares_of

DISPATCHES_MAX = 1000  # that are read of a wait: the rest of a longer wait is divided as the part that was read
_SECONDS_MIN = 0.1  # a shorter wait may be the dispatcher's own work, and says nothing of the pool

Span = tuple[datetime, datetime]


class WaitReason(models.TextChoices):
    NO_LIVE_WORKER = "no_live_worker", "its pool had no live worker"
    CONCURRENCY_LIMIT = "concurrency_limit", "its account ran as many jobs as it may"
    QUARANTINE = "quarantine", "another job that lost its workers ran: such jobs run one at a time"
    OTHER_TENANTS = "other_tenants", "it was the turn of other accounts"
    OWN_JOBS = "own_jobs", "other jobs of its account were first"
    FREE_WORKER = "free_worker", "all workers of its pool were busy"
    IDLE_POOL = "idle_pool", "it is of a batch, which runs while its pool has nothing else to do"
    WORKER_LOST = "worker_lost", "its worker no longer reported, and its lease had to run out"


class Wait(NamedTuple):
    """A part of a wait. `attempt` is the number of the attempt that the job waited for, or that was lost."""

    reason: WaitReason
    began_at: datetime
    seconds: float
    attempt: int | None


def waits(job: Job, attempts: Sequence[Attempt], *, lease_seconds: int, now: datetime) -> Iterator[Wait]:
    """Yield the waits of a job in order; one that has not ended yet lasts until `now`."""
    since = job.created_at
    for attempt in attempts:
        yield from _explain(job, attempt, since, attempt.dispatched_at)
        if attempt.state == Attempt.State.LOST:
            ended_at = attempt.finished_at or now
            silent_since = max(attempt.dispatched_at, attempt.lease_expires_at - timedelta(seconds=lease_seconds))
            seconds = (ended_at - silent_since).total_seconds()
            yield Wait(WaitReason.WORKER_LOST, silent_since, seconds, attempt.number)
        if attempt.finished_at is None:
            return
        since = attempt.finished_at
    yield from _explain(job, None, since, job.finished_at or now)


def _explain(job: Job, attempt: Attempt | None, began_at: datetime, ended_at: datetime) -> Iterator[Wait]:
    """Yield the parts of one wait, by their beginning. `attempt` ended it, if any did."""
    if (ended_at - began_at).total_seconds() < _SECONDS_MIN:
        return
    left: list[Span] = [(began_at, ended_at)]
    found: list[tuple[WaitReason, datetime, float]] = []
    recorded = (
        (WaitReason.NO_LIVE_WORKER, _outages(job, attempt, began_at, ended_at)),
        (WaitReason.CONCURRENCY_LIMIT, _capped(job, attempt, ended_at)),
        (WaitReason.QUARANTINE, _quarantines(job, began_at, ended_at)),
    )
    for reason, spans in recorded:
        rest = _without(left, spans)
        if (seconds := _seconds(left) - _seconds(rest)) > 0:
            first = next(max(a, c) for a, b in left for c, d in sorted(spans) if max(a, c) < min(b, d))
            found.append((reason, first, seconds))
        left = rest
    found += _divide(job, left, began_at, ended_at)
    number = attempt.number if attempt else None
    for reason, first, seconds in sorted(found, key=lambda part: part[1]):
        if seconds >= _SECONDS_MIN:
            yield Wait(reason, first, seconds, number)


def _outages(job: Job, attempt: Attempt | None, began_at: datetime, ended_at: datetime) -> list[Span]:
    over = PoolOutage.objects.filter(pool=job.pool_id, ended_at__gt=began_at, began_at__lt=ended_at)
    spans = [(outage.began_at, outage.ended_at) for outage in over]
    if attempt is None and (since := outage_began_at(job.pool)) < ended_at:
        spans.append((since, ended_at))  # this one has not ended
    return spans


def _capped(job: Job, attempt: Attempt | None, ended_at: datetime) -> list[Span]:
    since = attempt.capped_since if attempt else None
    if attempt is None and job.state == State.QUEUED:
        own = shares_of(job).objects.filter(pool=job.pool_id, tenant=job.tenant_id)
        since = own.values_list("capped_since", flat=True).first()
    return [(since, ended_at)] if since and since < ended_at else []


def _quarantines(job: Job, began_at: datetime, ended_at: datetime) -> list[Span]:
    """Return when another quarantined job of the pool had its last attempt, if this job is quarantined. Only a job of a
    batch waits for those of batches."""
    if not job.quarantined:
        return []
    others = Attempt.objects.filter(job__pool=job.pool_id, job__quarantined=True, number__gt=2).exclude(job=job.pk)
    if not job.in_batch:
        others = others.exclude(job__in_batch=True)
    ran = others.filter(Q(finished_at=None) | Q(finished_at__gt=began_at), dispatched_at__lt=ended_at)
    return [(one.dispatched_at, one.finished_at or ended_at) for one in ran.order_by("dispatched_at")[:DISPATCHES_MAX]]


# By the index of dispatches, which has those of all pools: a bounded number is read, whatever the wait.
_DISPATCHES = """
SELECT attempt.dispatched_at, count(*) FILTER (WHERE job.pool_id = %(pool)s AND job.tenant_id = %(tenant)s),
    count(*) FILTER (WHERE job.pool_id = %(pool)s), count(*)
FROM (
    SELECT job_id, dispatched_at FROM jobs_attempt
    WHERE dispatched_at > %(began_at)s AND dispatched_at < %(ended_at)s ORDER BY dispatched_at LIMIT %(max)s
) AS attempt JOIN jobs_job AS job ON job.id = attempt.job_id
GROUP BY attempt.dispatched_at ORDER BY attempt.dispatched_at
"""


def _divide(
    job: Job, left: Sequence[Span], began_at: datetime, ended_at: datetime
) -> list[tuple[WaitReason, datetime, float]]:
    """Divide the time in which the pool was full by who got the places that became free."""
    if not left:
        return []
    if job.in_batch:
        return [(WaitReason.IDLE_POOL, left[0][0], _seconds(left))]
    names: dict[str, Any] = {"pool": job.pool_id, "tenant": job.tenant_id, "max": DISPATCHES_MAX}
    names |= {"began_at": began_at, "ended_at": ended_at}
    with connection.cursor() as cursor:
        cursor.execute(_DISPATCHES, names)
        dispatches: list[tuple[datetime, int, int, int]] = cursor.fetchall()
    seconds = dict.fromkeys((WaitReason.OTHER_TENANTS, WaitReason.OWN_JOBS, WaitReason.FREE_WORKER), 0.0)
    last_at = began_at
    first_at: dict[WaitReason, datetime] = {}
    for dispatched_at, own, of_pool, _ in dispatches:
        if not of_pool:
            continue
        gap = _seconds(_within(left, last_at, dispatched_at))
        for reason, places in ((WaitReason.OWN_JOBS, own), (WaitReason.OTHER_TENANTS, of_pool - own)):
            if places and gap:
                first_at.setdefault(reason, _within(left, last_at, dispatched_at)[0][0])
                seconds[reason] += gap * places / of_pool
        last_at = dispatched_at
    tail = _within(left, last_at, ended_at)
    was_cut = sum(count for *_, count in dispatches) == DISPATCHES_MAX
    if was_cut and (known := sum(seconds.values())):
        seconds = {reason: part * (1 + _seconds(tail) / known) for reason, part in seconds.items()}
    elif tail:
        seconds[WaitReason.FREE_WORKER] = _seconds(tail)
        first_at[WaitReason.FREE_WORKER] = tail[0][0]
    return [(reason, first_at[reason], part) for reason, part in seconds.items() if reason in first_at]


def _within(spans: Sequence[Span], began_at: datetime, ended_at: datetime) -> list[Span]:
    return [(max(a, began_at), min(b, ended_at)) for a, b in spans if max(a, began_at) < min(b, ended_at)]


def _without(spans: Sequence[Span], cuts: Sequence[Span]) -> list[Span]:
    left = list(spans)
    for cut_began, cut_ended in cuts:
        parts = [((a, min(b, cut_began)), (max(a, cut_ended), b)) for a, b in left]
        left = [part for pair in parts for part in pair if part[0] < part[1]]
    return left


def _seconds(spans: Sequence[Span]) -> float:
    return sum((ended_at - began_at).total_seconds() for began_at, ended_at in spans)
