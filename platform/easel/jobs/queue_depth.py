"""How many jobs of a tenant may wait: what keeps a client that only sends from filling the database."""

import math
from datetime import datetime, timedelta
from typing import Any

from core.pipeline import PipelinedQuery, Query
from easel.jobs.models import Job
from tenants.models import ApiKey, Quota
from tenants.quotas import QueueFull, owner_of

DRAIN_SECONDS = 60  # how far back the pace is measured at which a tenant's jobs end
WAIT_SECONDS_MAX = 60

# Counts no further than the limits ask, and by the index of unfinished jobs, of which those in workers' hands are few.
_QUEUED = """
SELECT count(*), count(*) FILTER (WHERE api_key_id = %(key)s) FROM (
    SELECT api_key_id FROM jobs_job
    WHERE tenant_id = %(tenant)s AND finished_at IS NULL AND state = 'queued' LIMIT %(most)s
) AS waiting
"""


def queue_check(*, api_key: ApiKey, quotas: list[Quota], queued_jobs_max: int, now: datetime) -> PipelinedQuery[None]:
    """Raises `QueueFull` where as many jobs wait as the account, or the key, may have waiting.

    An account without a limit of its own has the platform's, `queued_jobs_max`. In the transaction of an admission,
    after `units_take`: a tenant's admissions have taken turns there.
    """
    own = {quota.api_key_id: quota for quota in quotas if quota.queued_jobs_max is not None}
    account = own[None].queued_jobs_max if None in own else queued_jobs_max
    of_key = own[api_key.pk].queued_jobs_max if api_key.pk in own else None
    fields: dict[str, Any] = {"tenant": api_key.tenant_id, "key": api_key.pk, "most": account}
    ((of_account, with_key),) = yield Query(_QUEUED, fields)
    if account is not None and of_account >= account:
        owner = owner_of(own[None]) if None in own else "the platform's limit"
        raise QueueFull(limit=account, owner=owner, retry_after_seconds=wait_seconds(api_key, now=now))
    if of_key is not None and with_key >= of_key:
        owner = owner_of(own[api_key.pk])
        raise QueueFull(limit=of_key, owner=owner, retry_after_seconds=wait_seconds(api_key, now=now))


def wait_seconds(api_key: ApiKey, *, now: datetime) -> int:
    """Until the next of a tenant's jobs ends, at the pace of the last minute; where none ended, `WAIT_SECONDS_MAX`."""
    since = now - timedelta(seconds=DRAIN_SECONDS)
    ended = Job.objects.filter(tenant=api_key.tenant_id, deleted_at=None, finished_at__gte=since).count()
    return min(WAIT_SECONDS_MAX, math.ceil(DRAIN_SECONDS / ended)) if ended else WAIT_SECONDS_MAX
