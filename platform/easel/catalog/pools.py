"""Creates pools of workers: shared pools, a tier's pools, and tenants' dedicated pools."""

import re
from datetime import datetime
from decimal import Decimal

from django.db import IntegrityError, transaction

from easel.catalog.errors import PoolExists, PoolNameInvalid
from easel.catalog.models import ModelVersion, Pool, PoolTier
from tenants.models import SLUG, Tenant


def dedicated_pool_create(
    *, tenant: Tenant, version: ModelVersion, gpu_class: str, gpu_hour_cost: Decimal = Decimal(0), now: datetime
) -> Pool:
    """Create the tenant's dedicated pool, which holds a version's weights; the tenant's jobs go there from now on.

    The pool has the tenant's slug, and the namespace `easel-t-<slug>` in Redis and in Kubernetes. Raises `PoolExists`.
    """
    pool = Pool(slug=tenant.slug, namespace=f"easel-t-{tenant.slug}", tenant=tenant)
    pool.checkpoint, pool.precision = version.checkpoint, version.precision
    conflict = f"{tenant.slug} has a pool already, or another pool has that name"
    return _created(pool, conflict, gpu_class, gpu_hour_cost, now)


def tier_pool_create(
    *,
    name: str,
    tier: PoolTier,
    version: ModelVersion,
    gpu_class: str,
    gpu_hour_cost: Decimal = Decimal(0),
    now: datetime,
) -> Pool:
    """Create a tier's pool, which holds a version's weights; the tier's jobs of such versions go there from now on.

    Raises `PoolExists`, `PoolNameInvalid`.
    """
    pool = _named(name, tier=tier, checkpoint=version.checkpoint, precision=version.precision)
    conflict = f"there is a pool named {name}, or another of tier {tier} with the weights of {version.label}"
    return _created(pool, conflict, gpu_class, gpu_hour_cost, now)


def shared_pool_create(*, name: str, gpu_class: str, gpu_hour_cost: Decimal, now: datetime) -> Pool:
    """Create a pool that serves the versions which name it. Raises `PoolExists`, `PoolNameInvalid`."""
    return _created(_named(name), f"there is a pool named {name}", gpu_class, gpu_hour_cost, now)


def _named(name: str, **weights: str) -> Pool:
    if not re.fullmatch(SLUG, name) or name.startswith("t-"):  # easel-t-… is the namespace of a dedicated pool
        rule = "use lower-case letters, digits and '-', not t-…, as in fast-int8"
        raise PoolNameInvalid(f"{name!r} is no name for a pool: {rule}")
    return Pool(slug=name, namespace=f"easel-{name}", **weights)


def _created(pool: Pool, conflict: str, gpu_class: str, gpu_hour_cost: Decimal, now: datetime) -> Pool:
    pool.gpu_class, pool.gpu_hour_cost, pool.created_at = gpu_class, gpu_hour_cost, now
    try:
        with transaction.atomic():
            pool.save(force_insert=True)
    except IntegrityError as error:
        raise PoolExists(conflict) from error
    return pool


def pool_cost_set(pool: Pool, *, gpu_hour_cost: Decimal) -> None:
    """Set the platform's cost of one GPU hour in USD from now on; days that have passed don't change."""
    Pool.objects.filter(pk=pool.pk).update(gpu_hour_cost=gpu_hour_cost)
