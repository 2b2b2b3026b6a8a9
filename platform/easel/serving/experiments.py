"""Experiments: a tenant assigns its own callers to arms and compares the results.

A request takes part in the running experiment of its tenant and model unless it sets a parameter that an arm sets: a
request that names adapters takes no part in an experiment on adapters. A caller (the request's `user`, or the request
itself if it names none) stays in its arm.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import IntegrityError, transaction

from core.pages import page_after
from core.revision import cached_by_revision
from easel.catalog.adapters import adapter_get, adapters_resolve, erased_name
from easel.catalog.errors import AdapterInUse, VersionNotFound
from easel.catalog.models import Adapter, Model, ModelVersion
from easel.serving.errors import ExperimentExists, ExperimentInvalid, ExperimentNotFound
from easel.serving.models import Arm, Experiment
from easel.serving.routing import bucket_of, main_version, share_of, weights_check
from tenants.models import SLUG, Tenant

ARMS_MAX = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmPlan:
    """Parameters that an arm sets; None and () set nothing. `adapters` are pairs of name and scale."""

    name: str
    weight: int
    version: int | None = None
    adapters: tuple[tuple[str, float], ...] = ()
    steps: int | None = None


@transaction.atomic
def experiment_start(
    *, tenant: Tenant, name: str, model_name: str | None, arms: Sequence[ArmPlan], now: datetime
) -> Experiment:
    """Start an experiment on the tenant's requests to a model.

    Raises `ExperimentInvalid`, `WeightsInvalid`, `ExperimentExists`, `ModelNotFound`, `VersionNotFound`, and what
    `adapters_resolve` raises for the adapters of an arm.
    """
    letters = "1 to 40 lower-case letters, digits and inner hyphens"
    if not re.fullmatch(SLUG, name):
        raise ExperimentInvalid(f"an experiment's name must have {letters}", param="name")
    if not 2 <= len(arms) <= ARMS_MAX:
        raise ExperimentInvalid(f"an experiment must have 2 to {ARMS_MAX} arms", param="arms")
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names) or not all(re.fullmatch(SLUG, name) for name in names):
        raise ExperimentInvalid(f"each arm must have a unique name of {letters}", param="arms")
    weights_check([arm.weight for arm in arms])
    served = main_version(model_name, tenant=tenant)
    versions = {arm.name: _version(served.model, arm.version) for arm in arms}
    for arm in arms:
        version = versions[arm.name] or served
        adapters_resolve(tenant=tenant, names=[adapter for adapter, _ in arm.adapters], version=version)
        if arm.steps is not None and not 1 <= arm.steps <= version.steps_max:
            limit = f"steps must be between 1 and {version.steps_max} for {version.label}"
            raise ExperimentInvalid(limit, param="arms")
    try:
        with transaction.atomic():
            experiment = Experiment.objects.create(tenant=tenant, model=served.model, name=name, started_at=now)
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
    """Stop the assignment of callers; idempotent. Raises `ExperimentNotFound`."""
    experiment = experiment_get(tenant=tenant, name=name)
    running = Experiment.objects.filter(pk=experiment.pk, state=Experiment.State.RUNNING)
    running.update(state=Experiment.State.STOPPED, stopped_at=now)
    return experiment_get(tenant=tenant, name=name)


def adapter_retire(*, tenant: Tenant, name: str, now: datetime) -> Adapter:
    """Keep an adapter out of new requests; running jobs finish with it. Raises `AdapterNotFound`, `AdapterInUse`."""
    adapter = adapter_get(tenant=tenant, name=name)
    running = Arm.objects.filter(experiment__tenant=tenant, experiment__state=Experiment.State.RUNNING)
    if arm := running.filter(adapters__contains=[{"name": name}]).select_related("experiment").first():
        raise AdapterInUse(f"the experiment {arm.experiment.name} uses the adapter {name}: stop it first")
    Adapter.objects.filter(pk=adapter.pk, retired_at=None).update(retired_at=now)
    return adapter_get(tenant=tenant, name=name)


def experiments_erase(*, tenant: Tenant, now: datetime) -> None:
    """Stop a tenant's experiments and erase the names in them; their reports don't change."""
    for experiment in tenant.experiments.all():
        experiment_stop(tenant=tenant, name=experiment.name, now=now)
        Experiment.objects.filter(pk=experiment.pk).update(name=erased_name(experiment.pk))
        for arm in experiment.arms.all():
            Arm.objects.filter(pk=arm.pk).update(name=f"arm-{arm.position}", adapters=[])


def experiment_get(*, tenant: Tenant, name: str) -> Experiment:
    """Find a tenant's experiment. Raises `ExperimentNotFound`, also for another tenant's experiment."""
    found = Experiment.objects.select_related("model", "tenant").prefetch_related("arms__version")
    experiment = found.filter(tenant=tenant, name=name).first()
    if experiment is None:
        raise ExperimentNotFound(f"there is no experiment {name!r}: GET /v1/experiments lists yours")
    return experiment


def experiments_page(*, tenant: Tenant, limit: int, after: UUID | None) -> tuple[list[Experiment], bool]:
    """List a tenant's experiments, newest first, those after `after`; return True too if more follow.

    Raises `ExperimentNotFound`.
    """
    rows = Experiment.objects.filter(tenant=tenant).select_related("model").prefetch_related("arms__version")
    last = rows.filter(pk=after).first() if after is not None else None
    if after is not None and last is None:
        raise ExperimentNotFound(f"there is no experiment {after}: GET /v1/experiments lists yours", param="after")
    return page_after(rows, order=("-started_at", "-id"), after=last, limit=limit)


def arm_for(*, tenant: Tenant, model: Model, caller: str, names_adapters: bool, names_steps: bool) -> Arm | None:
    """Return the arm of a request; None if no experiment runs or the request sets a parameter that an arm sets."""
    arms = _running(tenant, model)
    if not arms:
        return None
    sets_adapters, sets_steps = any(arm.adapters for arm in arms), any(arm.steps is not None for arm in arms)
    if (names_adapters and sets_adapters) or (names_steps and sets_steps):
        return None
    return share_of(
        [(arm, arm.weight) for arm in arms], bucket=bucket_of(f"experiment {arms[0].experiment_id}", caller)
    )


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
