"""Registers checkpoints as model versions."""

from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal

from django.db import transaction

from easel.registry.checkpoint import lora_targets
from easel.registry.models import Model, ModelVersion, Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionLimits:
    """What a version draws. Sides in pixels; `gpu_seconds_bound` per image unit and step, at most."""

    side_min: int
    side_max: int
    size_default: str
    steps_default: int
    steps_max: int
    gpu_seconds_bound: Decimal


@transaction.atomic
def version_register(
    *, model_name: str, checkpoint: str, pool: Pool, limits: VersionLimits, now: datetime
) -> ModelVersion:
    """Makes a checkpoint the newest version of a model, made on first use; the same again changes nothing.

    Raises what `lora_targets` does for what is no checkpoint.
    """
    settings = {
        "checkpoint": checkpoint,
        "pool_id": pool.pk,
        "lora_targets": lora_targets(checkpoint),
        **asdict(limits),
    }
    model, _ = Model.objects.get_or_create(name=model_name, defaults={"created_at": now})
    newest = ModelVersion.objects.filter(model=model, retired_at=None).order_by("-number").first()
    if newest is not None and all(getattr(newest, name) == value for name, value in settings.items()):
        return newest
    number = (ModelVersion.objects.filter(model=model).count()) + 1
    return ModelVersion.objects.create(model=model, number=number, created_at=now, **settings)


@transaction.atomic
def model_make_default(model: Model) -> None:
    """Requests that name no model go to this one."""
    Model.objects.filter(is_default=True).exclude(pk=model.pk).update(is_default=False)
    Model.objects.filter(pk=model.pk).update(is_default=True)
