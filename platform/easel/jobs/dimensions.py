"""The labels of a job: those of its log lines, and those that its usage is grouped by."""

from easel.jobs.models import Job


def names_of(job: Job) -> dict[str, str]:
    """Return the fields that every log line about a job has."""
    return {"job": str(job.id), "tenant": job.tenant.slug, "request_id": job.request_id}


def dimensions_of(job: Job) -> dict[str, str]:
    """Return what reports group a job's usage by."""
    return {
        "pool": job.pool.slug,
        "model": job.model_version.model.name,
        "model_version": job.model_version.label,
        "adapter": "+".join(job.adapters.values_list("adapter_version__adapter__name", flat=True)),
        "api_key": job.api_key.key_id,
        "quality": job.quality,
        "tier": job.tier,
        "resolution": f"{job.width}x{job.height}",
        **({"batch": "yes"} if job.in_batch else {}),
    }
