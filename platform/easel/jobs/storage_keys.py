"""Names of a job's objects in the store."""

from collections.abc import Iterator
from datetime import date, datetime
from typing import Protocol
from uuid import UUID


class OfJob(Protocol):
    """What names a job's objects: a `Job`, or what was read of one."""

    @property
    def id(self) -> UUID: ...
    @property
    def tenant_slug(self) -> str: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def output_format(self) -> str: ...
    @property
    def n(self) -> int: ...
    @property
    def partial_images(self) -> int: ...


def output_key(job: OfJob, attempt_token: UUID, index: int) -> str:
    """Per attempt, so that a lost attempt that still writes never touches its successor's image."""
    return f"{_folder(job, attempt_token)}/{index}.{job.output_format}"


def preview_key(job: OfJob, attempt_token: UUID, index: int, number: int) -> str:
    return f"{_folder(job, attempt_token)}/{index}-preview-{number}.{job.output_format}"


def attempt_keys(job: OfJob, attempt_token: UUID) -> Iterator[str]:
    """All that an attempt may have stored."""
    for index in range(job.n):
        yield output_key(job, attempt_token, index)
        for number in range(job.partial_images):
            yield preview_key(job, attempt_token, index, number)


def day_folder(tenant_slug: str, day: date) -> str:
    """Of all objects of a tenant's jobs of a day (UTC)."""
    return f"{tenant_slug}/outputs/{day:%Y-%m-%d}"


def job_of_key(key: str) -> UUID:
    """The job whose object this is."""
    return UUID(key.split("/")[3])


def _folder(job: OfJob, attempt_token: UUID) -> str:
    return f"{day_folder(job.tenant_slug, job.created_at)}/{job.id}/{attempt_token}"
