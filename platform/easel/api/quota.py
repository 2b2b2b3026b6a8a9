"""The limits of a tenant and of its key, how much of them is used, and how long its data is retained."""

from contextlib import suppress
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any
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
from easel.api.rows import listed, row_json
from easel.batches.file_limits import file_use
from easel.jobs.models import State
from easel.jobs.queue_depth import unfinished_jobs
from tenants.models import ApiKey, image_url_minutes
from tenants.quotas import LIMITS, limit_of, next_month, quotas_of, units_used
from tenants.retention import retention_of

_UNITS = "image_units_per_month"


class OwnedLimit(TypedDict):
    of: Annotated[str, OneOf(("account", "api_key"))]
    resets_at: datetime | None


class CountLimit(OwnedLimit):
    """A limit of requests, jobs, pixels, steps or uploaded files, which are whole."""

    limit: Annotated[str, OneOf(tuple(name for name in LIMITS if name != _UNITS))]
    value: int
    used: int | None
    remaining: int | None


class UnitLimit(OwnedLimit):
    """The limit of image units, of which a small image is a fraction."""

    limit: Annotated[str, OneOf((_UNITS,))]
    value: float
    used: float | None
    remaining: float | None


class RetentionAnswer(TypedDict):
    output_days: int
    job_days: int


class KeyAnswer(TypedDict):
    """The key that the request came with: what it may do, until when, and from which networks (none: from all)."""

    key_id: str
    name: str
    project: str
    scopes: list[str]
    expires_at: datetime | None
    addresses: list[str]


class QuotaAnswer(TypedDict):
    """Each limit that is set, those of uploaded files, how long your data is retained, and your key."""

    # The fields of a `Listed`, repeated: pydantic forgets the rows' type in a subclass of a generic class.
    object: str
    data: list[CountLimit | UnitLimit]
    first_id: str | None
    last_id: str | None
    has_more: bool
    retention: RetentionAnswer
    image_url_minutes: int
    api_key: KeyAnswer


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
        buckets = {quota.family_id: bucket for quota, bucket in zip(limited, found, strict=True)}
    rows: list[dict[str, Any]] = []
    for quota in quotas:
        jobs = unfinished_jobs(api_key.tenant_id, quota.family_id)
        used: dict[str, Decimal | int] = {
            "concurrent_jobs_max": jobs.count(),
            "queued_jobs_max": jobs.filter(state=State.QUEUED).count(),
            _UNITS: units[quota.family_id],
        }
        if quota.api_key_id is None:
            used |= file_use(api_key.tenant, now=now)
        resets_at = {_UNITS: next_month(now)}
        if bucket := buckets.get(quota.family_id):
            used["requests_per_minute"] = bucket.limit - bucket.remaining
            resets_at["requests_per_minute"] = now + timedelta(seconds=bucket.reset_seconds)
        rows += [
            {
                "limit": name,
                "of": "account" if quota.api_key_id is None else "api_key",
                "value": number(limit),
                "used": number(used[name]) if name in used else None,
                "remaining": number(max(0, limit - used[name])) if name in used else None,
                "resets_at": resets_at.get(name),
            }
            for name, number in ((name, float if name == _UNITS else int) for name in LIMITS)
            if (limit := limit_of(quota, name)) is not None
        ]
    retention = retention_of(api_key.tenant, default=settings.EASEL)
    return {
        **listed(rows),
        "retention": row_json(RetentionAnswer, retention),
        "image_url_minutes": image_url_minutes(api_key.tenant),
        "api_key": row_json(KeyAnswer, api_key, project=api_key.project.slug),
    }
