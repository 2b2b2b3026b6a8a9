"""What a worker has to be told to serve the model that requests get when they name none."""

from easel.registry.errors import ModelNotFound
from easel.registry.models import ModelVersion
from easel.registry.routing import main_version


def default_worker() -> dict[str, str]:
    """The worker's environment variables, by the registry; empty when no model is the default one."""
    try:
        return worker_of(main_version(None))
    except ModelNotFound:
        return {}


def worker_of(version: ModelVersion) -> dict[str, str]:
    """For a worker of a version's pool: it serves every live version of that pool that has the same weights."""
    same = ModelVersion.objects.select_related("model").filter(
        pool=version.pool, checkpoint=version.checkpoint, precision=version.precision, retired_at=None
    )
    return {
        "EASEL_MODEL": version.checkpoint,
        "EASEL_MODEL_VERSIONS": ",".join(found.label for found in same.order_by("model__name", "number")),
        "EASEL_POOL_NAMESPACE": version.pool.namespace,
    }
