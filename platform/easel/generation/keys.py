"""Names of a job's objects in the store."""

from uuid import UUID

from easel.generation.models import Job


def output_key(job: Job, attempt_token: UUID, index: int) -> str:
    """Per attempt, so that a lost attempt that still writes never touches its successor's image."""
    return f"{job.tenant.slug}/outputs/{job.created_at:%Y-%m-%d}/{job.id}/{attempt_token}/{index}.{job.output_format}"
