"""Limits requests per minute by exact token buckets in Redis, one of the tenant and one of the key, in one script.

A bucket holds as many tokens as its limit and gains `limit` of them a minute, evenly. Levels are whole numbers of
1/60,000 token, of which a millisecond gains `limit`, so that nothing is ever rounded. Only calls that create work
take a token: reads are free. Without Redis every request passes and is counted as unlimited, because whatever costs
money is limited in PostgreSQL, in admission's transaction.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from math import inf
from typing import Any, cast

import structlog
from django.conf import settings
from django.http import HttpRequest
from prometheus_client import Counter
from redis.exceptions import RedisError

from core.errors import DomainError
from core.redis_client import redis_fail_fast
from tenants.models import ApiKey, Quota
from tenants.quotas import owner_of, quotas_of

log = structlog.get_logger()
SKIPPED = Counter("easel_rate_limit_skipped_total", "Requests let through uncounted while Redis was unavailable.")
REDIS_RETRY_SECONDS = 1.0  # no call for this long after Redis did not answer, so that a hung one holds few threads
REDIS_SECONDS_MAX = 0.25  # Redis answers within 1 ms; one that hangs must not hold the API's threads
_retry_at: dict[str, float] = {}
TOKEN = 60_000  # levels are in parts of a token; also the milliseconds in which an empty bucket fills
_SCRIPT = """
local now, token, cost, levels, denied = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), {}, false
for i, key in ipairs(KEYS) do
    local limit = tonumber(ARGV[i + 3])
    local level, at = limit * token, now
    local stored = redis.call('HMGET', key, 'level', 'at')
    if stored[1] then
        -- A clock behind the last one gains nothing.
        at = math.max(now, tonumber(stored[2]))
        level = math.min(limit * token, tonumber(stored[1]) + math.min(at - tonumber(stored[2]), token) * limit)
    end
    levels[i] = {level, at}
    denied = denied or level < cost
end
local left = {denied and 1 or 0}
for i, key in ipairs(KEYS) do
    local level, at = levels[i][1], levels[i][2]
    if cost > 0 and not denied then
        level = level - cost
        redis.call('HSET', key, 'level', string.format('%.0f', level), 'at', string.format('%.0f', at))
        redis.call('PEXPIRE', key, token + 1000)
    end
    left[i + 1] = level
end
return left
"""


class RateLimited(DomainError, code="rate_limit_exceeded", type="rate_limit_error", http_status=429, retryable=True):
    """Too many requests in a minute.

    Wait for the seconds of `Retry-After`, and then repeat the request. `GET /v1/quota` shows your limits.
    """

    def __init__(self, message: str, *, retry_after_seconds: int | None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.retryable = retry_after_seconds is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A bucket after a request: its limit per minute, whole tokens left, and seconds until it is full again.

    `wait_seconds` is the time until it has a token, None for never.
    """

    name: str
    limit: int
    remaining: int
    reset_seconds: int
    wait_seconds: int | None


def take(request: HttpRequest, key: ApiKey, *, now: datetime) -> None:
    """Take a token of each of the key's buckets, or of none, and leave their headers with the request.

    Raises `RateLimited`. A request that runs again (`core.revision.optimistic`) takes nothing twice.
    """
    quotas = [quota for quota in quotas_of(key) if quota.requests_per_minute is not None]
    asked = [(quota.pk, quota.requests_per_minute) for quota in quotas]
    if not quotas or asked == getattr(request, "rate_limit_asked", None):
        return
    request.rate_limit_asked = asked  # type: ignore[attr-defined]
    try:
        denied, buckets = spend(quotas, now=now)
    except RedisError as error:
        # Money and the database's limits still hold; a tenant's work should not stop for a counter of requests.
        SKIPPED.inc()
        log.warning("rate_limit_skipped", error=repr(error))
        return
    # The IETF draft's headers for each bucket, and OpenAI's for the one with the fewest tokens left.
    least = min(buckets, key=lambda bucket: bucket.remaining)
    request.rate_limit_headers = {  # type: ignore[attr-defined]
        "RateLimit-Policy": ", ".join(f'"{bucket.name}";q={bucket.limit};w=60' for bucket in buckets),
        "RateLimit": ", ".join(f'"{bucket.name}";r={bucket.remaining};t={bucket.reset_seconds}' for bucket in buckets),
        "x-ratelimit-limit-requests": str(least.limit),
        "x-ratelimit-remaining-requests": str(least.remaining),
        "x-ratelimit-reset-requests": f"{least.reset_seconds}s",
    }
    if denied is not None:
        quota, wait_seconds = denied
        limit = quota.requests_per_minute
        after = f": try again in {wait_seconds} s" if wait_seconds is not None else ""
        del request.rate_limit_asked  # type: ignore[attr-defined]
        raise RateLimited(
            f"{limit} requests a minute are allowed ({owner_of(quota)}){after}", retry_after_seconds=wait_seconds
        )


def spend(quotas: Sequence[Quota], *, now: datetime) -> tuple[tuple[Quota, int | None] | None, list[Bucket]]:
    """Take a token of each quota's bucket if all have one.

    Return the quota whose bucket is the last to have a token again, with the seconds until then (None: never), or None
    if none lacked one; and the buckets. Raises `RedisError`.
    """
    denied, buckets = _ask(quotas, now=now, cost=TOKEN)
    if not denied:
        return None, buckets
    empty = [
        (quota, bucket.wait_seconds) for quota, bucket in zip(quotas, buckets, strict=True) if not bucket.remaining
    ]
    return max(empty, key=lambda wait: inf if wait[1] is None else wait[1]), buckets


def peek(quotas: Sequence[Quota], *, now: datetime) -> list[Bucket]:
    """Return the buckets, without taking a token. Raises `RedisError`."""
    return _ask(quotas, now=now, cost=0)[1]


def _ask(quotas: Sequence[Quota], *, now: datetime, cost: int) -> tuple[bool, list[Bucket]]:
    """Take `cost` from every bucket, or from none. Return True if a bucket lacked it, and the buckets after that."""
    # A Redis cluster hashes the part in braces: both buckets are on one node, where one script changes them.
    keys = [f"easel:ratelimit:{{{quota.tenant_id}}}:{quota.family_id or 'account'}" for quota in quotas]
    limits = [quota.requests_per_minute or 0 for quota in quotas]
    moment = int(now.timestamp() * 1000)
    url = settings.EASEL.redis_url
    if time.monotonic() < _retry_at.get(url, 0.0):
        raise RedisError("it did not answer a moment ago")
    try:
        denied, *levels = cast(list[int], _script(url)(keys=keys, args=[moment, TOKEN, cost, *limits]))
    except RedisError:
        _retry_at[url] = time.monotonic() + REDIS_RETRY_SECONDS
        raise
    buckets = [
        Bucket(
            name="account" if quota.api_key_id is None else "key",
            limit=limit,
            remaining=level // TOKEN,
            # A bucket gains `limit * 1000` parts of a token a second; rounded up.
            reset_seconds=-((level - limit * TOKEN) // (limit * 1000)) if limit else 0,
            wait_seconds=max(0, -((level - TOKEN) // (limit * 1000))) if limit else None,
        )
        for quota, limit, level in zip(quotas, limits, levels, strict=True)
    ]
    return bool(denied), buckets


@cache
def _script(redis_url: str) -> Any:
    """Return the script, on a client that neither waits long nor retries: a retry would take a second token."""
    return redis_fail_fast(REDIS_SECONDS_MAX).register_script(_SCRIPT)
