"""Puts model versions into service and takes them out of it."""

from datetime import datetime

from django.db import transaction

from easel.catalog.errors import VersionInUse
from easel.catalog.models import Model, ModelVersion, Pool, Precision
from easel.catalog.versions import VersionLimits, version_add
from easel.serving.errors import ModelNameTaken
from easel.serving.models import Alias, Arm, Experiment, Route
from easel.serving.routing import routes_replace


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
    """Add a checkpoint to the catalog, and route all callers of its model to it if nothing serves the model yet.

    A later version serves nobody until an operator routes callers to it or rolls it out. Registering the same version
    again changes nothing. Raises `ModelNameTaken` and what `version_add` does.
    """
    if Alias.objects.filter(name=model_name).exists():
        raise ModelNameTaken(f"{model_name!r} is an alias: `easel model unalias {model_name}` frees the name")
    version = version_add(
        model_name=model_name, checkpoint=checkpoint, precision=precision, pool=pool, limits=limits, now=now
    )
    if not Route.objects.filter(model=version.model_id).exists():
        routes_replace(version.model, {version: 100})
    return version


@transaction.atomic
def version_retire(version: ModelVersion, *, now: datetime) -> None:
    """Retires a version that neither a route nor a running experiment sends requests to. Raises `VersionInUse`."""
    Model.objects.select_for_update().get(pk=version.model_id)
    arms = Arm.objects.filter(version=version, experiment__state=Experiment.State.RUNNING)
    if Route.objects.filter(version=version).exists() or arms.exists():
        raise VersionInUse(f"requests still go to {version.label}: route them elsewhere first")
    ModelVersion.objects.filter(pk=version.pk, retired_at=None).update(retired_at=now)
