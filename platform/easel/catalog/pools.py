"""Makes pools of workers: shared ones, and tenants' own."""

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
    """Makes the tenant's own pool, for workers that hold a version's weights; its jobs go there from now on.

    It is named as the tenant, and so is its namespace in Redis and in Kubernetes: `easel-t-<slug>`. Raises
    `PoolExists`.
    """
    return _created(
        Pool(
            slug=tenant.slug,
            namespace=f"easel-t-{tenant.slug}",
            tenant=tenant,
            checkpoint=version.checkpoint,
            precision=version.precision,
            gpu_class=gpu_class,
            gpu_hour_cost=gpu_hour_cost,
            created_at=now,
        ),
        otherwise=f"{tenant.slug} has a pool, or another pool is called so",
    )


def tier_pool_create(
    *,
    name: str,
    tier: PoolTier,
    version: ModelVersion,
    gpu_class: str,
    gpu_hour_cost: Decimal = Decimal(0),
    now: datetime,
) -> Pool:
    """Makes the pool of a tier, for every version with the weights of this one: its jobs go there from now on.

    Raises `PoolExists`, `PoolNameInvalid`.
    """
    _check_name(name)
    return _created(
        Pool(
            slug=name,
            namespace=f"easel-{name}",
            tier=tier,
            checkpoint=version.checkpoint,
            precision=version.precision,
            gpu_class=gpu_class,
            gpu_hour_cost=gpu_hour_cost,
            created_at=now,
        ),
        otherwise=f"there is a pool called {name}, or another of tier {tier} for the weights of {version.label}",
    )


def shared_pool_create(*, name: str, gpu_class: str, gpu_hour_cost: Decimal, now: datetime) -> Pool:
    """Makes a pool for versions of models that its workers will hold. Raises `PoolExists`, `PoolNameInvalid`."""
    _check_name(name)
    return _created(
        Pool(
            slug=name,
            namespace=f"easel-{name}",
            gpu_class=gpu_class,
            gpu_hour_cost=gpu_hour_cost,
            created_at=now,
        ),
        otherwise=f"there is a pool called {name}",
    )


def _check_name(name: str) -> None:
    if not re.fullmatch(SLUG, name) or name.startswith("t-"):  # easel-t-… are tenants' namespaces
        raise PoolNameInvalid(
            f"{name!r} is no name for a pool: lower-case letters, digits and '-', not t-…, as in fast-int8"
        )


def _created(pool: Pool, *, otherwise: str) -> Pool:
    try:
        with transaction.atomic():
            pool.save(force_insert=True)
    except IntegrityError as error:
        raise PoolExists(otherwise) from error
    return pool


def pool_cost_set(pool: Pool, *, gpu_hour_cost: Decimal) -> None:
    """What an hour of one of its GPUs costs the platform from now on, in USD; what has passed keeps its cost."""
    Pool.objects.filter(pk=pool.pk).update(gpu_hour_cost=gpu_hour_cost)
