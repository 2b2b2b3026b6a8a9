"""Reads of jobs."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db.models import Count, Min, Q, QuerySet, Sum

from easel.jobs.errors import JobNotFound
from easel.jobs.models import Attempt, Job, State
from tenants.models import Tenant


def job_get(*, tenant: Tenant, job_id: UUID) -> Job:
    """With all that an answer shows. Raises `JobNotFound`, also for another tenant's."""
    job = _shown().filter(tenant=tenant, id=job_id).first()
    if job is None:
        raise JobNotFound(f"there is no job {job_id}")
    return job


def jobs_page(*, tenant: Tenant, limit: int, after: UUID | None, state: str | None) -> tuple[Sequence[Job], bool]:
    """The tenant's jobs, newest first, and whether there are more; without those that were deleted.

    Raises `JobNotFound` for an unknown `after`.
    """
    jobs = _shown().filter(tenant=tenant, deleted_at=None).order_by("-created_at", "-id")
    if state is not None:
        jobs = jobs.filter(state=state)
    if after is not None:
        last = job_get(tenant=tenant, job_id=after)
        jobs = jobs.filter(Q(created_at__lt=last.created_at) | Q(created_at=last.created_at, id__lt=last.id))
    page = list(jobs[: limit + 1])
    return page[:limit], len(page) > limit


def jobs_by_pool() -> list[tuple[str, str, int]]:
    """(pool, state, jobs) since the beginning."""
    rows = Job.objects.order_by().values_list("pool__slug", "state").annotate(count=Count("id"))
    return [(pool, state, count) for pool, state, count in rows]


def oldest_queued_by_pool() -> dict[str, datetime]:
    """When the oldest waiting job was admitted, by pool; a pool where none waits is not there."""
    rows = Job.objects.filter(state=State.QUEUED).order_by().values_list("pool__slug")
    return dict(rows.annotate(Min("created_at")))


def lost_attempts_by_pool() -> dict[str, int]:
    """Attempts whose lease ran out since the beginning, by pool; a pool without one is not there."""
    rows = Attempt.objects.filter(state=Attempt.State.LOST).order_by().values_list("job__pool__slug")
    return dict(rows.annotate(Count("token")))


def live_tokens(job: Job) -> list[str]:
    return [str(token) for token in job.attempts.filter(state=Attempt.State.LIVE).values_list("token", flat=True)]


def wasted_gpu_seconds() -> float:
    """GPU seconds of attempts that made nothing: the platform's cost, billed to nobody."""
    wasted = Attempt.objects.exclude(state__in=(Attempt.State.SUCCEEDED, Attempt.State.LIVE))
    return float(wasted.aggregate(sum=Sum("gpu_seconds"))["sum"] or 0)


def _shown() -> QuerySet[Job]:
    jobs = Job.objects.select_related("model_version__model", "project", "tenant", "pool", "arm__experiment")
    return jobs.prefetch_related("adapters__adapter_version__adapter", "attempts", "outputs", "cached_from__attempts")
