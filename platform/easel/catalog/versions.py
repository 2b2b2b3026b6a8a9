"""Registers checkpoints as model versions."""

from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal

from django.db import transaction

from easel.catalog.checkpoint import lora_targets
from easel.catalog.errors import PoolHoldsOther, VersionIncompatible, VersionInUse
from easel.catalog.models import (
    Model,
    ModelVersion,
    Pool,
    Precision,
)
from easel.serving.models import Arm, Experiment, Route
from easel.serving.routing import routes_replace


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionLimits:
    """What a version draws. Sides in pixels; `gpu_seconds_bound` per image unit and step, at most.

    An image of at most `fast_image_units_max` is of the fast tier when its quality leaves that open.
    """

    side_min: int
    side_max: int
    size_default: str
    fast_image_units_max: Decimal
    steps_default: int
    steps_max: int
    gpu_seconds_bound: Decimal


@transaction.atomic
def version_register(
    *,
    model_name: str,
    checkpoint: str,
    precision: str = Precision.NONE,
    pool: Pool,
    limits: VersionLimits,
    now: datetime,
) -> ModelVersion:
    """Makes a checkpoint the newest version of a model, made on first use; the same again changes nothing.

    A model's first version serves all of it; a later one serves nobody until it is routed to, or rolled out. Raises
    `VersionIncompatible`, `PoolHoldsOther`, and what `lora_targets` does for what is no checkpoint.
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
        raise PoolHoldsOther(f"{pool.slug} is for other weights: name another pool (`easel pool create`)")
    held = ModelVersion.objects.filter(pool=pool, retired_at=None).exclude(precision=precision).first()
    if held is not None:
        raise PoolHoldsOther(
            f"the workers of {pool.slug} hold weights at precision {held.precision}, for {held.label}: "
            f"name another pool (`easel pool create`)"
        )
    number = versions[0].number + 1 if versions else 1
    made = ModelVersion.objects.create(model=model, number=number, created_at=now, **settings)
    if not Route.objects.filter(model=model).exists():
        routes_replace(model, {made: 100})
    return made


@transaction.atomic
def version_retire(version: ModelVersion, *, now: datetime) -> None:
    """Ends a version that nobody is routed to. Raises `VersionInUse`."""
    Model.objects.select_for_update().get(pk=version.model_id)
    arms = Arm.objects.filter(version=version, experiment__state=Experiment.State.RUNNING)
    if Route.objects.filter(version=version).exists() or arms.exists():
        raise VersionInUse(f"requests still go to {version.label}: route them elsewhere first")
    ModelVersion.objects.filter(pk=version.pk, retired_at=None).update(retired_at=now)


@transaction.atomic
def model_make_default(model: Model) -> None:
    """Requests that name no model go to this one."""
    Model.objects.filter(is_default=True).exclude(pk=model.pk).update(is_default=False)
    Model.objects.filter(pk=model.pk).update(is_default=True)
