"""How long what tenants made and wrote is kept: the platform's days, and a tenant's own where it has any.

Days are whole (UTC): what ended on a day is kept for so many days after it, and deleted in the day that follows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from core.errors import DomainError
from tenants.models import RETENTION_DAYS_MAX, Tenant


class RetentionInvalid(DomainError):
    """Images and jobs are kept for 1 to 3650 days, images no longer than their jobs."""

    code = "retention_invalid"


class KeptDays(Protocol):
    """What the platform is configured with."""

    @property
    def output_days(self) -> int: ...

    @property
    def job_days(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Images are kept for `output_days`, what a job says (prompt, metadata, user, errors) for `job_days`."""

    output_days: int
    job_days: int


def retention_of(tenant: Tenant, *, default: KeptDays) -> Retention:
    """What holds for a tenant. Images never outlive their job, so that fewer `job_days` alone are enough."""
    job_days = default.job_days if tenant.job_days is None else tenant.job_days
    output_days = default.output_days if tenant.output_days is None else tenant.output_days
    return Retention(output_days=min(output_days, job_days), job_days=job_days)


def retention_set(*, tenant: Tenant, changes: Mapping[str, int | None], default: KeptDays) -> Retention:
    """Sets `output_days` and `job_days`, or one of them; None: as the platform. Returns what holds then.

    Raises `RetentionInvalid`, also for images that would be kept longer than the platform keeps jobs.
    """
    for field, days in changes.items():
        if days is not None and not 1 <= days <= RETENTION_DAYS_MAX:
            raise RetentionInvalid(f"{field} is 1 to {RETENTION_DAYS_MAX}, or none for the platform's", param=field)
        setattr(tenant, field, days)
    holds = retention_of(tenant, default=default)
    if tenant.output_days is not None and tenant.output_days > holds.job_days:
        raise RetentionInvalid(
            f"images are kept no longer than their jobs: {tenant.output_days} days need as many job days, which are"
            f" {holds.job_days}",
            param="output_days",
        )
    tenant.save(update_fields=[*changes])
    return holds
