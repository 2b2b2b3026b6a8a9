"""Adds checkpoints to the catalog as model versions."""

from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal

from django.db import transaction

from easel.catalog.checkpoint import lora_targets
from easel.catalog.errors import PoolHoldsOther, VersionIncompatible
from easel.catalog.models import Model, ModelVersion, Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionLimits:
    """Limits and defaults of a version's requests.

    Sides are in pixels. `gpu_seconds_bound` is the upper bound of GPU seconds per image unit and step. A request whose
    quality names no tier goes to the fast tier if its images have at most `fast_image_units_max` image units each.
    """

    side_min: int
    side_max: int
    size_default: str
    fast_image_units_max: Decimal
    steps_default: int
    steps_max: int
    gpu_seconds_bound: Decimal


@transaction.atomic
def version_add(
    *, model_name: str, checkpoint: str, precision: str, pool: Pool, limits: VersionLimits, now: datetime
) -> ModelVersion:
    """Add the next version of a model, and the model with its first version; return an equal live version if any.

    The model stays locked until the transaction ends. Raises `VersionIncompatible`, `PoolHoldsOther`, and what
    `lora_targets` raises for something that isn't a checkpoint.
    """
    settings = {
        "checkpoint": checkpoint,
        "precision": precision,
        "pool_id": pool.pk,
        "lora_targets": lora_targets(checkpoint),
        **asdict(limits),
    }
    model, _ = Model.objects.get_or_create(name=model_name, defaults={"created_at": now})
    Model.objects.select_for_update().get(pk=model.pk)
    versions = list(ModelVersion.objects.filter(model=model).order_by("-number"))
    live = [version for version in versions if version.retired_at is None]
    for version in live:
        if all(getattr(version, name) == value for name, value in settings.items()):
            return version
    if live and live[0].lora_targets != settings["lora_targets"]:
        raise VersionIncompatible
    Pool.objects.select_for_update().get(pk=pool.pk)
    if pool.checkpoint and (pool.checkpoint, pool.precision) != (checkpoint, precision):
        raise PoolHoldsOther(f"the pool {pool.slug} holds other weights: name another pool (`easel pool create`)")
    other = ModelVersion.objects.filter(pool=pool, retired_at=None).exclude(precision=precision).first()
    if other is not None:
        held = f"the workers of {pool.slug} hold weights at precision {other.precision}, for {other.label}"
        raise PoolHoldsOther(f"{held}: name another pool (`easel pool create`)")
    number = versions[0].number + 1 if versions else 1
    return ModelVersion.objects.create(model=model, number=number, created_at=now, **settings)


@transaction.atomic
def model_make_default(model: Model) -> None:
    """Send requests that name no model to this one."""
    Model.objects.filter(is_default=True).exclude(pk=model.pk).update(is_default=False)
    Model.objects.filter(pk=model.pk).update(is_default=True)
