"""The limits of a tenant and of its key, how much of them is used, and how long its data is retained."""

from contextlib import suppress
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from redis.exceptions import RedisError
from typing_extensions import TypedDict

from core import clock
from easel.api.declaration import OneOf
from easel.api.endpoint import endpoint
from easel.api.rate_limit import Bucket, peek
from easel.api.resource import answer_json, caller
from easel.api.rows import Listed, listed, row_json
from easel.jobs.models import State
from easel.jobs.queue_depth import unfinished_jobs
from tenants.models import ApiKey
from tenants.quotas import LIMITS, next_month, quotas_of, units_used
from tenants.retention import retention_of


class LimitAnswer(TypedDict):
    limit: Annotated[str, OneOf(tuple(LIMITS))]
    of: Annotated[str, OneOf(("account", "api_key"))]
    value: float
    used: float | None
    remaining: float | None
    resets_at: datetime | None


class RetentionAnswer(TypedDict):
    output_days: int
    job_days: int


class QuotaAnswer(Listed[LimitAnswer]):
    retention: RetentionAnswer


@endpoint("get", "quota_get", QuotaAnswer)
def quota(request: HttpRequest) -> HttpResponse:
    """List each limit of your account and of this key, and how much of it is used."""
    return answer_json(quota_json(caller(request), now=clock.now()))


def quota_json(api_key: ApiKey, *, now: datetime) -> QuotaAnswer:
    quotas, units = quotas_of(api_key), units_used(api_key, now=now)
    limited = [quota for quota in quotas if quota.requests_per_minute is not None]
    buckets: dict[UUID | None, Bucket] = {}
    with suppress(RedisError):  # nothing is counted while Redis is unavailable
        found = peek(limited, now=now) if limited else []
        buckets = {quota.api_key_id: bucket for quota, bucket in zip(limited, found, strict=True)}
    rows: list[LimitAnswer] = []
    for quota in quotas:
        jobs = unfinished_jobs(api_key.tenant_id, quota.api_key_id)
        used: dict[str, Decimal | int] = {
            "concurrent_jobs_max": jobs.count(),
            "queued_jobs_max": jobs.filter(state=State.QUEUED).count(),
            "image_units_per_month": units[quota.api_key_id],
        }
        resets_at = {"image_units_per_month": next_month(now)}
        if bucket := buckets.get(quota.api_key_id):
            used["requests_per_minute"] = bucket.limit - bucket.remaining
            resets_at["requests_per_minute"] = now + timedelta(seconds=bucket.reset_seconds)
        rows += [
            {
                "limit": name,
                "of": "account" if quota.api_key_id is None else "api_key",
                "value": float(limit),
                "used": float(used[name]) if name in used else None,
                "remaining": max(0.0, float(limit - used[name])) if name in used else None,
                "resets_at": resets_at.get(name),
            }
            for name in LIMITS
            if (limit := getattr(quota, name)) is not None
        ]
    retention = retention_of(api_key.tenant, default=settings.EASEL)
    return {**listed(rows), "retention": row_json(RetentionAnswer, retention)}
