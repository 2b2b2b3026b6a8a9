"""Configuration of a pool's workers: the weights they hold, and their login at Redis."""

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
    """Return the workers of a stack on one machine: of the default model's pool, and of pools with own weights."""
    try:
        shared = [worker_named(None)]
    except ModelNotFound:
        shared = []
    return [*shared, *(pool_worker(pool) for pool in Pool.objects.exclude(checkpoint="").order_by("slug"))]


def worker_named(slug: str | None) -> PoolWorker:
    """Return a worker of the named pool, by default of the default model's. Raises `PoolNotFound`, `ModelNotFound`."""
    if slug is None:
        version = main_version(None)
        return _worker(version.pool, version)
    pool = Pool.objects.filter(slug=slug).first()
    if pool is None:
        raise PoolNotFound(f"there is no pool {slug!r}")
    return pool_worker(pool)


def pool_worker(pool: Pool) -> PoolWorker:
    """Return a worker of the pool, with the pool's own checkpoint or that of the newest version that names the pool.

    Raises `ModelNotFound` for a pool that has neither.
    """
    if pool.checkpoint:
        return _worker(pool, pool)
    newest = ModelVersion.objects.filter(pool=pool, retired_at=None).order_by("-created_at", "-number").first()
    if newest is None:
        raise ModelNotFound(f"the pool {pool.slug!r} serves no version of a model")
    return _worker(pool, newest)


def _worker(pool: Pool, weights: Pool | ModelVersion) -> PoolWorker:
    same = {"checkpoint": weights.checkpoint, "precision": weights.precision}
    versions = ModelVersion.objects.select_related("model").filter(**same, retired_at=None)
    served = versions if pool.checkpoint else versions.filter(pool=pool)
    return {
        "pool": pool.slug,
        "env": {
            "EASEL_MODEL": weights.checkpoint,
            "EASEL_PRECISION": weights.precision,
            # One worker serves all versions with these weights: each task carries the defaults in which they differ.
            "EASEL_MODEL_VERSIONS": ",".join(version.label for version in served.order_by("model__name", "number")),
            "EASEL_POOL_NAMESPACE": pool.namespace,
            "REDIS_URL": worker_redis_url(settings.EASEL.redis_url, pool, secret=settings.EASEL.secret_key),
        },
    }
