"""Requests per minute: an exact token bucket in Redis for the tenant and one for the key, asked in one step.

A bucket holds as many tokens as its limit and gains `limit` of them a minute, evenly. Levels are whole numbers of
1/60,000 token, of which a millisecond gains `limit`, so that nothing is ever rounded. Only calls that make work take
a token: reading is free.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, cast

import structlog
from prometheus_client import Counter
from redis.exceptions import RedisError
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from easel.api.authentication import caller
from easel.api.clock import now
from easel.generation.transport import redis_client
from tenants.errors import DomainError
from tenants.models import Quota
from tenants.quotas import owner_of, quotas_of

log = structlog.get_logger()
SKIPPED = Counter("easel_rate_limit_skipped_total", "Requests let through uncounted while Redis was away.")
TOKEN = 60_000  # levels are in parts of a token; also the milliseconds in which an empty bucket fills
_SCRIPT = """
local now, cost, levels, denied = tonumber(ARGV[1]), tonumber(ARGV[2]), {}, 0
for i, key in ipairs(KEYS) do
    local limit = tonumber(ARGV[i + 2])
    local level, at = limit * cost, now
    local kept = redis.call('HMGET', key, 'level', 'at')
    if kept[1] then
        -- A clock behind the last one gains nothing.
        at = math.max(now, tonumber(kept[2]))
        level = math.min(limit * cost, tonumber(kept[1]) + math.min(at - tonumber(kept[2]), cost) * limit)
    end
    levels[i] = {level, at}
    if level < cost and denied == 0 then denied = i end
end
local left = {denied}
for i, key in ipairs(KEYS) do
    local level, at = levels[i][1], levels[i][2]
    if denied == 0 then
        level = level - cost
        redis.call('HSET', key, 'level', string.format('%.0f', level), 'at', string.format('%.0f', at))
        redis.call('PEXPIRE', key, cost + 1000)
    end
    left[i + 1] = level
end
return left
"""


class RateLimited(DomainError):
    """Too many requests in a minute."""

    code, type, http_status, retryable = "rate_limit_exceeded", "rate_limit_error", 429, True

    def __init__(self, message: str, *, retry_after_seconds: int | None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.retryable = retry_after_seconds is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A bucket after a request: the limit a minute, whole tokens left, seconds until it is full again."""

    name: str
    limit: int
    remaining: int
    reset_seconds: int


class RequestsPerMinute(BaseThrottle):
    """For views whose POST makes work. Raises `RateLimited`; leaves the buckets' headers with the request."""

    def allow_request(self, request: Request, view: APIView) -> bool:
        if request.method == "POST":
            quotas = [quota for quota in quotas_of(caller(request)) if quota.requests_per_minute is not None]
            take(request, quotas, at=now())
        return True


def take(request: Request, quotas: Sequence[Quota], *, at: datetime) -> None:
    """Takes a token of every bucket, or of none."""
    if not quotas:
        return
    try:
        denied, buckets = spend(quotas, at=at)
    except RedisError as error:
        # Money and the database's limits still hold; a tenant's work shouldn't stop for a counter of requests.
        SKIPPED.inc()
        log.warning("rate_limit_skipped", error=repr(error))
        return
    request._request.rate_limit_headers = headers_of(buckets)  # type: ignore[attr-defined]
    if denied is not None:
        quota, wait_seconds = denied
        limit = quota.requests_per_minute
        after = f": try again in {wait_seconds} s" if wait_seconds is not None else ""
        raise RateLimited(
            f"{limit} requests a minute are allowed ({owner_of(quota)}){after}", retry_after_seconds=wait_seconds
        )


def spend(quotas: Sequence[Quota], *, at: datetime) -> tuple[tuple[Quota, int | None] | None, list[Bucket]]:
    """Takes a token of each quota's bucket if all have one.

    Returns the first quota that had none, with the seconds until it has (None: never), and the buckets as they are.
    Raises `RedisError`.
    """
    keys = [f"easel:ratelimit:{{{quota.tenant_id}}}:{quota.api_key_id or 'account'}" for quota in quotas]
    limits = [quota.requests_per_minute or 0 for quota in quotas]
    moment = int(at.timestamp() * 1000)
    left = cast(list[int], _script()(keys=keys, args=[moment, TOKEN, *limits]))
    buckets = [
        Bucket(
            name="account" if quota.api_key_id is None else "key",
            limit=limit,
            remaining=level // TOKEN,
            reset_seconds=_seconds(limit * TOKEN - level, limit) or 0,
        )
        for quota, limit, level in zip(quotas, limits, left[1:], strict=True)
    ]
    if not left[0]:
        return None, buckets
    index = left[0] - 1
    return (quotas[index], _seconds(TOKEN - left[index + 1], limits[index])), buckets


def headers_of(buckets: Sequence[Bucket]) -> dict[str, str]:
    """The IETF draft's headers for each bucket, and OpenAI's for the one with least left."""
    least = min(buckets, key=lambda bucket: bucket.remaining)
    return {
        "RateLimit-Policy": ", ".join(f'"{bucket.name}";q={bucket.limit};w=60' for bucket in buckets),
        "RateLimit": ", ".join(f'"{bucket.name}";r={bucket.remaining};t={bucket.reset_seconds}' for bucket in buckets),
        "x-ratelimit-limit-requests": str(least.limit),
        "x-ratelimit-remaining-requests": str(least.remaining),
        "x-ratelimit-reset-requests": f"{least.reset_seconds}s",
    }


def _seconds(parts: int, limit: int) -> int | None:
    """How long until `parts` of a token are gained, rounded up; None when that is never."""
    return -(-parts // (limit * 1000)) if limit else None


@cache
def _script() -> Any:
    return redis_client().register_script(_SCRIPT)
