"""What a job is told apart by, in reports and in logs."""

from easel.jobs.models import Job


def names_of(job: Job) -> dict[str, str]:
    """The fields of every log line about a job."""
    return {"job": str(job.id), "tenant": job.tenant.slug, "request_id": job.request_id}


def dimensions_of(job: Job) -> dict[str, str]:
    """What its usage is grouped by."""
    return {
        "pool": job.pool.slug,
        "model": job.model_version.model.name,
        "model_version": job.model_version.label,
        "adapter": "+".join(job.adapters.values_list("adapter_version__adapter__name", flat=True)),
        "api_key": job.api_key.key_id,
        "quality": job.quality,
        "tier": job.tier,
        "resolution": f"{job.width}x{job.height}",
    }
