"""Reads of jobs, for the API and for metrics."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db.models import Count, Min, QuerySet, Sum

from core.pages import page_after
from easel.jobs.errors import JobNotFound
from easel.jobs.models import Attempt, Job, State
from tenants.models import Tenant


def job_get(*, tenant: Tenant, job_id: UUID) -> Job:
    """Return a job with everything that an answer shows. Raise `JobNotFound`, also for another tenant's job."""
    job = _shown().filter(tenant=tenant, id=job_id).first()
    if job is None:
        raise JobNotFound(f"there is no job {job_id}")
    return job


def jobs_shown(job_ids: Sequence[UUID]) -> dict[UUID, Job]:
    """Return jobs with everything that an answer shows, by their ids."""
    return _shown().in_bulk(job_ids)


def jobs_page(*, tenant: Tenant, limit: int, after: UUID | None, state: str | None) -> tuple[Sequence[Job], bool]:
    """Return the tenant's jobs that are not deleted, newest first, and True if more follow.

    Raises `JobNotFound` for an unknown `after`.
    """
    jobs = _shown().filter(tenant=tenant, deleted_at=None)
    if state is not None:
        jobs = jobs.filter(state=state)
    last = None if after is None else job_get(tenant=tenant, job_id=after)
    return page_after(jobs, order=("-created_at", "-id"), after=last, limit=limit)


def jobs_by_pool() -> list[tuple[str, str, int]]:
    """Return (pool, state, number of jobs) over all time, without queued jobs of batches: none of them is urgent."""
    jobs = Job.objects.exclude(state=State.QUEUED, in_batch=True)
    rows = jobs.order_by().values_list("pool__slug", "state").annotate(count=Count("id"))
    return [(pool, state, count) for pool, state, count in rows]


def oldest_queued_by_pool() -> dict[str, datetime]:
    """Return the instant at which the oldest queued job was admitted, by pool; pools without one are left out.

    Jobs of batches don't count: they wait until their pool is idle.
    """
    rows = Job.objects.filter(state=State.QUEUED, in_batch=False).order_by().values_list("pool__slug")
    return dict(rows.annotate(Min("created_at")))


def lost_attempts_by_pool() -> dict[str, int]:
    """Return the number of attempts whose lease has expired, over all time, by pool; pools without one are left out."""
    rows = Attempt.objects.filter(state=Attempt.State.LOST).order_by().values_list("job__pool__slug")
    return dict(rows.annotate(Count("token")))


def wasted_gpu_seconds() -> float:
    """Return the GPU seconds of attempts that did not succeed: the platform's cost, billed to no tenant."""
    wasted = Attempt.objects.exclude(state__in=(Attempt.State.SUCCEEDED, Attempt.State.LIVE))
    return float(wasted.aggregate(sum=Sum("gpu_seconds"))["sum"] or 0)


def _shown() -> QuerySet[Job]:
    jobs = Job.objects.select_related("model_version__model", "project", "tenant", "pool", "arm__experiment")
    return jobs.prefetch_related("adapters__adapter_version__adapter", "attempts", "outputs", "cached_from__attempts")
