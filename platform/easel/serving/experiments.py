"""Experiments: a tenant shares its own requests out between arms and compares what came of them.

A request belongs to the running experiment of its tenant and model if it leaves open what the arms set: one that
names adapters itself is no part of an experiment on adapters. Its caller (the tenant's `user`, or the request itself
where none is named) keeps its arm.
"""

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import IntegrityError, transaction

from core.revision import cached_by_revision
from easel.catalog.adapters import adapter_get, adapters_resolve, erased_name
from easel.catalog.errors import AdapterInUse, VersionNotFound
from easel.catalog.models import Adapter, Model, ModelVersion
from easel.serving.errors import ExperimentExists, ExperimentInvalid, ExperimentNotFound
from easel.serving.models import Arm, Experiment
from easel.serving.routing import (
    bucket_of,
    main_version,
    share_of,
    weights_check,
)
from tenants.models import SLUG, Tenant

ARMS_MAX = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmPlan:
    """What an arm sets; None and () leave it as the request or the model has it. `adapters` are (name, scale)."""

    name: str
    weight: int
    version: int | None = None
    adapters: tuple[tuple[str, float], ...] = ()
    steps: int | None = None


@transaction.atomic
def experiment_start(
    *, tenant: Tenant, name: str, model_name: str | None, arms: Sequence[ArmPlan], now: datetime
) -> Experiment:
    """Starts an experiment on the tenant's requests to a model.

    Raises `ExperimentInvalid`, `WeightsInvalid`, `ExperimentExists`, `ModelNotFound`, `VersionNotFound`, and for an
    arm's adapters what `adapters_resolve` does: another tenant's adapter is one that doesn't exist.
    """
    if not re.fullmatch(SLUG, name):
        raise ExperimentInvalid("a name is 1 to 40 lower-case letters, digits and inner hyphens", param="name")
    if not 2 <= len(arms) <= ARMS_MAX:
        raise ExperimentInvalid(f"an experiment has 2 to {ARMS_MAX} arms", param="arms")
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names) or not all(re.fullmatch(SLUG, name) for name in names):
        raise ExperimentInvalid(
            "each arm has a name of its own, of 1 to 40 lower-case letters, digits and inner hyphens", param="arms"
        )
    weights_check([arm.weight for arm in arms])
    served = main_version(model_name)
    versions = {arm.name: _version(served.model, arm.version) for arm in arms}
    for arm in arms:
        version = versions[arm.name] or served
        adapters_resolve(tenant=tenant, names=[adapter for adapter, _ in arm.adapters], version=version)
        if arm.steps is not None and not 1 <= arm.steps <= version.steps_max:
            raise ExperimentInvalid(f"steps is 1 to {version.steps_max} for {version.label}", param="arms")
    try:
        with transaction.atomic():
            experiment = Experiment.objects.create(
                id=uuid.uuid4(), tenant=tenant, model=served.model, name=name, started_at=now
            )
    except IntegrityError as error:
        raise ExperimentExists(param="name") from error
    Arm.objects.bulk_create(
        Arm(
            experiment=experiment,
            position=position,
            name=arm.name,
            weight=arm.weight,
            version=versions[arm.name],
            adapters=[{"name": adapter, "scale": scale} for adapter, scale in arm.adapters],
            steps=arm.steps,
        )
        for position, arm in enumerate(arms)
    )
    return experiment


def experiment_stop(*, tenant: Tenant, name: str, now: datetime) -> Experiment:
    """Ends the assignment of requests; a stopped experiment stays as it is. Raises `ExperimentNotFound`."""
    experiment = experiment_get(tenant=tenant, name=name)
    Experiment.objects.filter(pk=experiment.pk, state=Experiment.State.RUNNING).update(
        state=Experiment.State.STOPPED, stopped_at=now
    )
    return experiment_get(tenant=tenant, name=name)


def adapter_retire(*, tenant: Tenant, name: str, now: datetime) -> Adapter:
    """Keeps an adapter out of new requests; running jobs finish with it. Raises `AdapterNotFound`, `AdapterInUse`."""
    adapter = adapter_get(tenant=tenant, name=name)
    running = Arm.objects.filter(experiment__tenant=tenant, experiment__state=Experiment.State.RUNNING)
    if arm := running.filter(adapters__contains=[{"name": name}]).select_related("experiment").first():
        raise AdapterInUse(f"the experiment {arm.experiment.name} uses the adapter {name}: stop it first")
    Adapter.objects.filter(pk=adapter.pk, retired_at=None).update(retired_at=now)
    return adapter_get(tenant=tenant, name=name)


def experiments_erase(*, tenant: Tenant, now: datetime) -> None:
    """Stops a tenant's experiments and deletes the names in them; their reports stay."""
    for experiment in tenant.experiments.all():
        experiment_stop(tenant=tenant, name=experiment.name, now=now)
        Experiment.objects.filter(pk=experiment.pk).update(name=erased_name(experiment.pk))
        for arm in experiment.arms.all():
            Arm.objects.filter(pk=arm.pk).update(name=f"arm-{arm.position}", adapters=[])


def experiment_get(*, tenant: Tenant, name: str) -> Experiment:
    """Raises `ExperimentNotFound`, also for another tenant's."""
    found = Experiment.objects.select_related("model", "tenant").prefetch_related("arms__version")
    experiment = found.filter(tenant=tenant, name=name).first()
    if experiment is None:
        raise ExperimentNotFound(f"there is no experiment {name!r}: GET /v1/experiments lists yours")
    return experiment


def arm_for(*, tenant: Tenant, model: Model, caller: str, names_adapters: bool, names_steps: bool) -> Arm | None:
    """The arm that a request belongs to; None where no experiment runs or the request decides for itself."""
    arms = _running(tenant, model)
    if not arms:
        return None
    decided = (names_adapters and any(arm.adapters for arm in arms)) or (
        names_steps and any(arm.steps is not None for arm in arms)
    )
    if decided:
        return None
    shares = [(arm, arm.weight) for arm in arms]
    return share_of(shares, bucket=bucket_of(f"experiment {arms[0].experiment_id}", caller))


@cached_by_revision
def _running(tenant: Tenant, model: Model) -> list[Arm]:
    running = Arm.objects.filter(
        experiment__tenant=tenant, experiment__model=model, experiment__state=Experiment.State.RUNNING
    )
    return list(running.select_related("experiment", "version__model", "version__pool"))


def _version(model: Model, number: int | None) -> ModelVersion | None:
    if number is None:
        return None
    version = ModelVersion.objects.select_related("model", "pool").filter(model=model, number=number, retired_at=None)
    if not version:
        raise VersionNotFound(f"{model.name} has no live version {number}", param="arms")
    return version[0]
