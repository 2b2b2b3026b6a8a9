"""Quotas of tenants and of their keys. Both apply: the tightest decides, and a refusal names its owner."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from math import ceil
from typing import Any
from uuid import UUID

from django.db.models import F, Q, Value
from django.db.models.functions import Greatest

from core.errors import DomainError
from core.pipeline import PipelinedQuery, Query
from core.revision import cached_by_revision
from tenants.models import ApiKey, MonthlyUse, Quota, Tenant

LIMITS = (
    "requests_per_minute",
    "concurrent_jobs_max",
    "queued_jobs_max",
    "image_units_per_month",
    "pixels_max",
    "steps_max",
    "stored_files_max",
    "stored_bytes_max",
    "uploads_per_minute",
)
# Limits of an account's uploaded files where it has none of its own. A key has none: a file is the account's.
FILE_LIMITS = {"stored_files_max": 500, "stored_bytes_max": 2**30, "uploads_per_minute": 30}
INTEGER_MAX = 2**31 - 1
HIGHEST: dict[str, int] = {"image_units_per_month": 10**9, "steps_max": 2**15 - 1, "stored_bytes_max": 2**50}


class QuotaInvalid(DomainError, code="quota_invalid"):
    """A limit must be 0 or more, or none.

    Give 0 or a higher number, or none for no limit.
    """


class ImageQuotaExceeded(
    DomainError, code="image_quota_exceeded", type="insufficient_quota", http_status=429, passes_later=True
):
    """The image units of this month are used up.

    Wait until the month ends, or have the operator raise the limit. `GET /v1/quota` shows both.
    """

    def __init__(self, message: str, *, retry_after_seconds: int | None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.passes_later = retry_after_seconds is not None


class ConcurrencyExceeded(
    DomainError, code="concurrency_limit_exceeded", type="rate_limit_error", http_status=429, retryable=True
):
    """The limit of unfinished jobs is reached: wait for one to end.

    Wait for one of your jobs to end, then repeat the request.
    """

    def __init__(self, *, limit: int, owner: str) -> None:
        if limit == 0:  # waiting doesn't help
            super().__init__(f"no jobs are allowed ({owner} of concurrent jobs is 0)")
            self.retryable = False
            return
        super().__init__(f"{limit} unfinished jobs are allowed at once ({owner}): wait for one to end")
        self.retry_after_seconds = 1


class QueueFull(DomainError, code="queue_full", type="rate_limit_error", http_status=429, retryable=True):
    """The limit of waiting jobs is reached: try again later.

    Wait for the seconds of `Retry-After`, then repeat the request.
    """

    def __init__(self, *, limit: int, owner: str, retry_after_seconds: int) -> None:
        if limit == 0:  # waiting doesn't help
            super().__init__(f"no jobs may wait ({owner} of waiting jobs is 0)")
            self.retryable = False
            return
        super().__init__(
            f"{limit} jobs are waiting, which is the limit ({owner}): try again in {retry_after_seconds} s"
        )
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A limit, and its owner in the words of a refusal."""

    value: int | Decimal
    owner: str


def quota_set(
    *, tenant: Tenant, api_key: ApiKey | None, limits: Mapping[str, int | Decimal | None], now: datetime
) -> Quota:
    """Set some limits of a tenant or of one of its keys; None lifts a limit. They apply from the next request on.

    Raises `QuotaInvalid`.
    """
    for name, value in limits.items():
        highest = HIGHEST.get(name, INTEGER_MAX)
        if name not in LIMITS:
            raise QuotaInvalid(f"unknown limit {name!r}; the limits are {', '.join(LIMITS)}")
        if api_key is not None and name in FILE_LIMITS and value is not None:
            raise QuotaInvalid(f"{name} is a limit of accounts; a key has none of its own", param=name)
        if value is not None and not (_is_amount(value, name) and 0 <= value <= highest):
            places = " with at most 4 decimal places" if name == "image_units_per_month" else ""
            raise QuotaInvalid(f"{name} must be between 0 and {highest}{places}, or none", param=name)
    if api_key is not None and api_key.tenant_id != tenant.pk:
        raise QuotaInvalid("the key belongs to another tenant")
    quota, _ = Quota.objects.update_or_create(tenant=tenant, api_key=api_key, defaults={**limits, "updated_at": now})
    return quota


def quotas_of(api_key: ApiKey) -> list[Quota]:
    """Return the quotas that apply to a key: its tenant's and its family's, if they exist."""
    return [quota for quota in _quotas(api_key.tenant_id) if quota.family_id in (None, api_key.family_id)]


def quotas_locked(api_key: ApiKey) -> list[Quota]:
    """Return the current quotas of a key, and make its tenant's admissions take turns until the commit."""
    rows = Quota.objects.filter(tenant=api_key.tenant_id).order_by("id").select_for_update(of=("self",))
    found = rows.select_related("api_key")
    return [quota for quota in found if quota.family_id in (None, api_key.family_id)]


@cached_by_revision
def _quotas(tenant_id: UUID) -> list[Quota]:
    return list(Quota.objects.filter(tenant=tenant_id).select_related("api_key").order_by("id"))


def file_limits(tenant: Tenant) -> dict[str, int]:
    """Return the limits of an account's uploaded files: its own, or else those of `FILE_LIMITS`."""
    own = next((quota for quota in _quotas(tenant.pk) if quota.api_key_id is None), None)
    return {name: limit_of(own, name) for name in FILE_LIMITS} if own else dict(FILE_LIMITS)


def limit_of(quota: Quota, name: str) -> Any:
    """Return a limit of a quota, or None; an account always has those of its files."""
    own = getattr(quota, name)
    return FILE_LIMITS.get(name) if own is None and quota.api_key_id is None else own


def owner_of(quota: Quota) -> str:
    """Return the owner of a quota in the words of a refusal."""
    return "your account's limit" if quota.api_key_id is None else "this API key's limit"


def limit_exceeded(quotas: list[Quota], name: str, *, amount: int) -> Bound | None:
    """Return the tightest of the limits that an amount exceeds, with its owner; None if it exceeds none."""
    exceeded = [quota for quota in quotas if (limit := getattr(quota, name)) is not None and amount > limit]
    bounds = [Bound(value=getattr(quota, name), owner=owner_of(quota)) for quota in exceeded]
    return min(bounds, key=lambda bound: bound.value, default=None)


# The row locks make a tenant's admissions take turns.
_ADD = """
INSERT INTO tenants_monthlyuse AS monthly (tenant_id, api_key_id, month, image_units, jobs)
VALUES (%(tenant)s, NULL, %(month)s, %(units)s, 1), (%(tenant)s, %(key)s, %(month)s, %(units)s, 1)
    ON CONFLICT (tenant_id, api_key_id, month)
    DO UPDATE SET image_units = monthly.image_units + excluded.image_units, jobs = monthly.jobs + 1
RETURNING api_key_id, image_units, jobs
"""


def units_take(
    *, api_key: ApiKey, quotas: list[Quota], image_units: Decimal, now: datetime
) -> PipelinedQuery[dict[UUID | None, int]]:
    """Count a job and its image units in the month, for the tenant and for the key's family, in the caller's
    transaction.

    Returns the jobs of the month, this one included: the tenant's under None, the family's under its id. Raises
    `ImageQuotaExceeded`; the caller's transaction must then not commit.
    """
    fields = {"tenant": api_key.tenant_id, "key": api_key.family_id, "month": month_utc(now), "units": image_units}
    rows = yield Query(_ADD, fields)
    used: dict[UUID | None, Decimal] = {owner: units for owner, units, _ in rows}
    for quota in quotas:
        limit = quota.image_units_per_month
        if limit is not None and used[quota.family_id] > limit:
            before = used[quota.family_id] - image_units
            raise ImageQuotaExceeded(
                f"this request is {image_units.normalize():f} image units, and {before.normalize():f} of"
                f" {limit.normalize():f} are used this month ({owner_of(quota)}); the next month begins at"
                f" {next_month(now).isoformat()}",
                # No month has room for more than the limit.
                retry_after_seconds=ceil((next_month(now) - now).total_seconds()) if image_units <= limit else None,
            )
    return {owner: jobs for owner, _, jobs in rows}


def units_return(*, api_key: ApiKey, image_units: Decimal, taken_at: datetime) -> None:
    """Return the image units that a job took but did not deliver."""
    # A missing count was never raised, so there is nothing to lower.
    rows = MonthlyUse.objects.filter(tenant=api_key.tenant_id, month=month_utc(taken_at))
    for holder in (Q(api_key=None), Q(api_key=api_key.family_id)):
        rows.filter(holder).update(image_units=Greatest(F("image_units") - image_units, Value(Decimal(0))))


def units_used(api_key: ApiKey, *, now: datetime) -> dict[UUID | None, Decimal]:
    """Return this month's image units: the tenant's under None, those of the key's family under its id."""
    rows = MonthlyUse.objects.filter(tenant=api_key.tenant_id, month=month_utc(now))
    found = rows.filter(Q(api_key=None) | Q(api_key=api_key.family_id)).values_list("api_key_id", "image_units")
    return {None: Decimal(0), api_key.family_id: Decimal(0), **dict(found)}


def month_utc(now: datetime) -> date:
    """Return the first day of the month of `now` in UTC."""
    return now.astimezone(UTC).date().replace(day=1)


def next_month(now: datetime) -> datetime:
    """Return the beginning of the month after `now` in UTC."""
    first = month_utc(now)
    following = date(first.year + first.month // 12, first.month % 12 + 1, 1)
    return datetime(following.year, following.month, 1, tzinfo=UTC)


def _is_amount(value: object, name: str) -> bool:
    """Return True if the column stores the number exactly: rounding 0.00001 to 0 would set another limit."""
    if name == "image_units_per_month" and isinstance(value, Decimal):
        return value.is_finite() and value.adjusted() < 20 and value == round(value, 4)
    return isinstance(value, int) and not isinstance(value, bool)
