"""Retention of images and jobs: the platform's days, or a tenant's own.

Days are whole days in UTC. A job that ended on a day is retained for that many days after it, then deleted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from core.errors import DomainError
from tenants.models import RETENTION_DAYS_MAX, Tenant


class RetentionInvalid(DomainError, code="retention_invalid"):
    """Images and jobs must be retained for 1 to 3650 days, images no longer than their jobs.

    Give whole days from 1 to 3650, no more for images than for jobs.
    """


class RetentionDefault(Protocol):
    """The platform's configured retention."""

    @property
    def output_days(self) -> int: ...

    @property
    def job_days(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Images are retained for `output_days`, a job's texts (prompt, metadata, user, errors) for `job_days`."""

    output_days: int
    job_days: int


def retention_of(tenant: Tenant, *, default: RetentionDefault) -> Retention:
    """Return a tenant's retention. Images never outlive their job, so `job_days` also limits `output_days`."""
    job_days = default.job_days if tenant.job_days is None else tenant.job_days
    output_days = default.output_days if tenant.output_days is None else tenant.output_days
    return Retention(output_days=min(output_days, job_days), job_days=job_days)


def retention_set(*, tenant: Tenant, changes: Mapping[str, int | None], default: RetentionDefault) -> Retention:
    """Set `output_days`, `job_days` or both; None: as the platform. Return the new retention.

    Raises `RetentionInvalid`, also for images that would be retained longer than the platform retains jobs.
    """
    for field, days in changes.items():
        if days is not None and not 1 <= days <= RETENTION_DAYS_MAX:
            raise RetentionInvalid(
                f"{field} must be between 1 and {RETENTION_DAYS_MAX}, or none for the platform's", param=field
            )
        setattr(tenant, field, days)
    retention = retention_of(tenant, default=default)
    if tenant.output_days is not None and tenant.output_days > retention.job_days:
        raise RetentionInvalid(
            f"images must be retained no longer than their jobs: output_days is {tenant.output_days}, job_days is"
            f" {retention.job_days}",
            param="output_days",
        )
    tenant.save(update_fields=[*changes])
    return retention
