"""What the workers of a pool have to be told: which weights they hold, and their way into Redis."""

from typing import TypedDict

from django.conf import settings

from easel.catalog.errors import ModelNotFound, PoolNotFound
from easel.catalog.models import ModelVersion, Pool
from easel.catalog.redis_users import worker_redis_url
from easel.serving.routing import main_version


class PoolWorker(TypedDict):
    """A pool's slug and the environment variables of its workers."""

    pool: str
    env: dict[str, str]


def local_workers() -> list[PoolWorker]:
    """What one machine runs: a worker of the default model's pool, and one of each pool that is told what to hold."""
    try:
        shared = [worker_named(None)]
    except ModelNotFound:
        shared = []
    return [*shared, *(pool_worker(pool) for pool in Pool.objects.exclude(checkpoint="").order_by("slug"))]


def worker_named(slug: str | None) -> PoolWorker:
    """For the pool of this name, or that of the default model. Raises `PoolNotFound`, `ModelNotFound`."""
    if slug is None:
        version = main_version(None)
        return _told(version.pool, version.checkpoint, version.precision)
    pool = Pool.objects.filter(slug=slug).first()
    if pool is None:
        raise PoolNotFound(f"there is no pool {slug!r}")
    return pool_worker(pool)


def pool_worker(pool: Pool) -> PoolWorker:
    """For a dedicated pool and one of a tier, by the checkpoint it holds; for another, by its newest version.

    Raises `ModelNotFound` for a pool without one.
    """
    if pool.checkpoint:
        return _told(pool, pool.checkpoint, pool.precision)
    newest = ModelVersion.objects.filter(pool=pool, retired_at=None).order_by("-created_at", "-number").first()
    if newest is None:
        raise ModelNotFound(f"no version of a model is served by the pool {pool.slug!r}")
    return _told(pool, newest.checkpoint, newest.precision)


def _told(pool: Pool, checkpoint: str, precision: str) -> PoolWorker:
    weights = {"checkpoint": checkpoint, "precision": precision}
    versions = ModelVersion.objects.select_related("model").filter(**weights, retired_at=None)
    served = versions if pool.checkpoint else versions.filter(pool=pool)
    return {
        "pool": pool.slug,
        "env": {
            "EASEL_MODEL": checkpoint,
            "EASEL_PRECISION": precision,
            # Versions of the same weights differ by their defaults, which come with each task.
            "EASEL_MODEL_VERSIONS": ",".join(found.label for found in served.order_by("model__name", "number")),
            "EASEL_POOL_NAMESPACE": pool.namespace,
            "REDIS_URL": worker_redis_url(settings.EASEL.redis_url, pool, secret=settings.EASEL.secret_key),
        },
    }
