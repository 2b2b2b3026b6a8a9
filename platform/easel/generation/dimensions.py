"""What usage is grouped by in reports."""

from easel.generation.models import Job


def dimensions_of(job: Job) -> dict[str, str]:
    return {
        "model": job.model_version.model.name,
        "model_version": job.model_version.label,
        "adapter": "+".join(job.adapters.values_list("adapter_version__adapter__name", flat=True)),
        "api_key": job.api_key.key_id,
        "resolution": f"{job.width}x{job.height}",
    }
