"""Limits the queued jobs of a tenant, so that a client that only submits can't fill the database."""

import math
from datetime import datetime, timedelta
from typing import Any

from core.pipeline import PipelinedQuery, Query
from easel.jobs.models import Job
from tenants.models import ApiKey, Quota
from tenants.quotas import QueueFull, owner_of

DRAIN_SECONDS = 60  # the period over which the pace of a tenant's finished jobs is measured
WAIT_SECONDS_MAX = 60

# Counting stops at the limit. It reads the index of unfinished jobs, few of which are dispatched or running.
_QUEUED = """
SELECT count(*), count(*) FILTER (WHERE api_key_id = %(key)s) FROM (
    SELECT api_key_id FROM jobs_job
    WHERE tenant_id = %(tenant)s AND finished_at IS NULL AND state = 'queued' LIMIT %(queued_max)s
) AS waiting
"""


def queue_check(*, api_key: ApiKey, quotas: list[Quota], queued_jobs_max: int, now: datetime) -> PipelinedQuery[None]:
    """Raise `QueueFull` if the account, or the key, has as many queued jobs as it may have.

    An account without a limit of its own has the platform's, `queued_jobs_max`. Call it in the transaction of an
    admission, after `units_take`, whose row lock keeps two admissions from both taking the last place.
    """
    own = {quota.api_key_id: quota for quota in quotas if quota.queued_jobs_max is not None}
    account = own[None].queued_jobs_max if None in own else queued_jobs_max
    of_key = own[api_key.pk].queued_jobs_max if api_key.pk in own else None
    fields: dict[str, Any] = {"tenant": api_key.tenant_id, "key": api_key.pk, "queued_max": account}
    ((of_account, with_key),) = yield Query(_QUEUED, fields)
    if account is not None and of_account >= account:
        owner = owner_of(own[None]) if None in own else "the platform's limit"
        raise QueueFull(limit=account, owner=owner, retry_after_seconds=wait_seconds(api_key, now=now))
    if of_key is not None and with_key >= of_key:
        owner = owner_of(own[api_key.pk])
        raise QueueFull(limit=of_key, owner=owner, retry_after_seconds=wait_seconds(api_key, now=now))


def wait_seconds(api_key: ApiKey, *, now: datetime) -> int:
    """Return the expected seconds until a tenant's next job ends, at the pace of the last DRAIN_SECONDS.

    It is `WAIT_SECONDS_MAX` if none ended in that time.
    """
    since = now - timedelta(seconds=DRAIN_SECONDS)
    ended = Job.objects.filter(tenant=api_key.tenant_id, deleted_at=None, finished_at__gte=since).count()
    return min(WAIT_SECONDS_MAX, math.ceil(DRAIN_SECONDS / ended)) if ended else WAIT_SECONDS_MAX
