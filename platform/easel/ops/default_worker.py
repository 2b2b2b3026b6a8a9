"""What a worker has to be told to serve the model that requests get when they name none."""

from easel.registry.models import ModelVersion


def default_worker() -> dict[str, str]:
    """The worker's environment variables, by the registry; empty when no model is the default one."""
    version = (
        ModelVersion.objects.filter(model__is_default=True, retired_at=None)
        .select_related("model", "pool")
        .order_by("-number")
        .first()
    )
    if version is None:
        return {}
    return {
        "EASEL_MODEL": version.checkpoint,
        "EASEL_MODEL_VERSION": version.label,
        "EASEL_POOL_NAMESPACE": version.pool.namespace,
    }
