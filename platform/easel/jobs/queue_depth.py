"""Limits the queued jobs of a tenant, so that a client that only submits can't fill the database.

To count a queue of thousands takes longer than the rest of an admission, so an admission counts only where the limit
may be reached. Each process remembers how many unfinished jobs it counted last, and how many jobs the tenant had
submitted in the month by then (`MonthlyUse.jobs`). Every queued job is unfinished, and was counted or submitted since:
the jobs counted and those submitted since are an upper bound of the queue.

The bound leaves out jobs that were submitted in another month than the clock of this process shows, and jobs that an
older version admitted, which did not count them. So a count is used for a minute at most.
"""

import math
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from django.db.models import Count, Q, QuerySet

from easel.jobs.models import Job, State
from tenants.keys import family_keys
from tenants.models import ApiKey, Quota
from tenants.quotas import QueueFull, month_utc, owner_of

DRAIN_SECONDS = 60  # the period over which the pace of a tenant's finished jobs is measured
WAIT_SECONDS_MAX = 60
COUNT_AGE_MAX = timedelta(minutes=1)
_COUNTS_MAX = 100_000


class _Count(NamedTuple):
    """The unfinished jobs at an instant, less the jobs that had been submitted in the month by then."""

    unfinished_less_jobs: int
    counted_at: datetime


# The last count of a tenant, a family of keys (None: all of the tenant's) and a month.
_counts: dict[tuple[UUID, UUID | None, date], _Count] = {}


def queue_check(
    *, api_key: ApiKey, quotas: list[Quota], queued_jobs_max: int, jobs: Mapping[UUID | None, int], now: datetime
) -> None:
    """Raise `QueueFull` if a new job leaves the account, or the key, with more queued jobs than it may have.

    An account without a limit of its own has the platform's, `queued_jobs_max`. Call it after `units_take`, which
    returned `jobs`, and after `job_insert`, in the transaction of both: the row lock of `units_take` keeps two
    admissions from both taking the last place.
    """
    limits: dict[UUID | None, tuple[int, str]] = {None: (queued_jobs_max, "the platform's limit")}
    for quota in quotas:
        if quota.queued_jobs_max is not None:
            limits[quota.family_id] = (quota.queued_jobs_max, owner_of(quota))
    tenant, month = api_key.tenant_id, month_utc(now)
    if len(_counts) > _COUNTS_MAX:
        _counts.clear()
    for owner, (limit, words) in limits.items():
        count = _counts.get((tenant, owner, month))
        if count and now - count.counted_at < COUNT_AGE_MAX and count.unfinished_less_jobs + jobs[owner] <= limit:
            continue
        found = unfinished_jobs(tenant, owner).aggregate(
            unfinished=Count("pk"), queued=Count("pk", filter=Q(state=State.QUEUED))
        )
        _counts[tenant, owner, month] = _Count(found["unfinished"] - jobs[owner], now)
        if found["queued"] > limit:
            raise QueueFull(limit=limit, owner=words, retry_after_seconds=wait_seconds(api_key, now=now))


def unfinished_jobs(tenant_id: UUID, family_id: UUID | None) -> QuerySet[Job]:
    """Return the unfinished jobs that a quota counts: the tenant's, or those of a family of its keys.

    The jobs of batches are not counted: a batch keeps its tenant from nothing.
    """
    jobs = Job.objects.filter(tenant=tenant_id, finished_at=None, in_batch=False)
    return jobs if family_id is None else jobs.filter(api_key__in=family_keys(family_id))


def wait_seconds(api_key: ApiKey, *, now: datetime) -> int:
    """Return the expected seconds until a tenant's next job ends, at the pace of the last DRAIN_SECONDS.

    It is `WAIT_SECONDS_MAX` if none ended in that time.
    """
    since = now - timedelta(seconds=DRAIN_SECONDS)
    ended = Job.objects.filter(tenant=api_key.tenant_id, deleted_at=None, finished_at__gte=since).count()
    return min(WAIT_SECONDS_MAX, math.ceil(DRAIN_SECONDS / ended)) if ended else WAIT_SECONDS_MAX
