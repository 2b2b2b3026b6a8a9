"""Names a job's objects in the store: `<tenant>/outputs/<day>/<job>/<attempt token>/<file>`."""

from collections.abc import Iterator
from datetime import date, datetime
from typing import Protocol
from uuid import UUID


class StoredJob(Protocol):
    """The fields of a job that its objects' keys are made of: a `Job` has them, and a row read by `transport`."""

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


def output_key(job: StoredJob, attempt_token: UUID, index: int) -> str:
    """Return the key of an image. It is per attempt, so that a lost attempt never overwrites its successor's image."""
    return f"{_folder(job, attempt_token)}/{index}.{job.output_format}"


def preview_key(job: StoredJob, attempt_token: UUID, index: int, number: int) -> str:
    """Return the key of an image's preview."""
    return f"{_folder(job, attempt_token)}/{index}-preview-{number}.{job.output_format}"


def attempt_keys(job: StoredJob, attempt_token: UUID) -> Iterator[str]:
    """Yield the key of every object that an attempt may have stored."""
    for index in range(job.n):
        yield output_key(job, attempt_token, index)
        for number in range(job.partial_images):
            yield preview_key(job, attempt_token, index, number)


def day_folder(tenant_slug: str, day: date) -> str:
    """Return the folder of all objects of a tenant's jobs that were admitted on a day (UTC)."""
    return f"{tenant_slug}/outputs/{day:%Y-%m-%d}"


def job_of_key(key: str) -> UUID:
    """Return the id of the job that an object belongs to."""
    return UUID(key.split("/")[3])


def attempt_of_key(key: str) -> UUID | None:
    """Return the token of the attempt that an object belongs to; None for a key of another form."""
    parts = key.split("/")
    try:
        return UUID(parts[4]) if len(parts) == 6 and parts[1] == "outputs" else None
    except ValueError:
        return None


def _folder(job: StoredJob, attempt_token: UUID) -> str:
    return f"{day_folder(job.tenant_slug, job.created_at)}/{job.id}/{attempt_token}"
