"""Which version of a model serves a request: by the model's weights, the same for a caller at every request."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import TypeVar

from django.db import transaction
from django.db.models import F, Q

from core.revision import cached_by_revision
from easel.catalog.errors import ModelNotFound, VersionNotFound
from easel.catalog.models import (
    Model,
    ModelVersion,
    Pool,
    PoolTier,
)
from easel.serving.errors import RolloutRunning, WeightsInvalid
from easel.serving.models import Rollout, Route
from tenants.models import Tenant

T = TypeVar("T")


@cached_by_revision
def model_get(name: str | None) -> Model:
    """The named model, or the default one, if a version serves it. Raises `ModelNotFound`."""
    query = Model.objects.filter(name=name) if name else Model.objects.filter(is_default=True)
    model = query.filter(routes__isnull=False).first()
    if model is None:
        wanted = f"model {name!r}" if name else "default model"
        raise ModelNotFound(f"there is no {wanted}: GET /v1/models lists what can be called", param="model")
    return model


def version_for(model: Model, *, caller: str) -> ModelVersion:
    """The version that serves a caller of the model: always the same one while the weights stay.

    The newest version has the first buckets, so that as a canary's share grows the callers it has keep it.
    Raises `ModelNotFound`.
    """
    by_age = _by_age(model)
    if not by_age:
        raise ModelNotFound(f"no version serves {model.name!r} any more", param="model")
    return share_of(by_age, bucket=bucket_of(f"model {model.name}", caller))


@cached_by_revision
def _by_age(model: Model) -> list[tuple[ModelVersion, int]]:
    routes = Route.objects.filter(model=model).select_related("version__model", "version__pool")
    return [(route.version, route.weight) for route in routes.order_by("-version__number")]


@cached_by_revision
def pool_for(version: ModelVersion, *, tenant: Tenant, tier: PoolTier) -> Pool:
    """Where a tenant's jobs of a version run.

    Of the pools that hold its weights the tenant's own comes first, then that of the tier; else the version's pool.
    """
    holding = Pool.objects.filter(checkpoint=version.checkpoint, precision=version.precision)
    able = holding.filter(Q(tenant=tenant) | Q(tenant=None, tier=tier))
    return able.order_by(F("tenant").asc(nulls_last=True)).first() or version.pool


def main_version(name: str | None) -> ModelVersion:
    """The version that serves most of a model's callers; what the model is described by. Raises `ModelNotFound`."""
    routes = Route.objects.filter(model=model_get(name)).select_related("version__model", "version__pool")
    return routes.order_by("-weight", "-version__number")[0].version


def live_models() -> list[ModelVersion]:
    """The main version of each model that can be called, by model name."""
    routes = Route.objects.select_related("version__model")
    return [
        route.version for route in routes.order_by("model__name", "-weight", "-version__number").distinct("model__name")
    ]


def bucket_of(salt: str, caller: str) -> int:
    """A caller's bucket from 0 to 99, by a hash that stays: SHA-256, of which 64 bits are taken modulo 100."""
    digest = hashlib.sha256(f"{salt}\0{caller}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % 100


def share_of(shares: Sequence[tuple[T, int]], *, bucket: int) -> T:
    """The first of `shares`, (thing, percent) summing to 100, whose part of the buckets holds `bucket`."""
    end = 0
    for thing, weight in shares:
        end += weight
        if bucket < end:
            return thing
    raise ValueError(f"shares sum to {end}, not to 100")


def weights_check(weights: Sequence[int]) -> None:
    """Raises `WeightsInvalid`, saying what is wrong, unless they are percents that sum to 100."""
    if any(weight < 1 or weight > 100 for weight in weights):
        raise WeightsInvalid(f"a weight is a whole percent from 1 to 100: {list(weights)}", param="weight")
    if sum(weights) != 100:
        raise WeightsInvalid(f"the weights sum to {sum(weights)}, not to 100", param="weight")


@transaction.atomic
def routes_set(*, model: Model, weights: Mapping[int, int]) -> None:
    """Shares out a model's callers, in percent by version number.

    Raises `WeightsInvalid`, `VersionNotFound` (also for a retired version), `RolloutRunning`.
    """
    weights_check(list(weights.values()))
    Model.objects.select_for_update().get(pk=model.pk)
    if Rollout.objects.filter(model=model, state=Rollout.State.RUNNING).exists():
        raise RolloutRunning
    versions = {version.number: version for version in ModelVersion.objects.filter(model=model, retired_at=None)}
    if missing := sorted(set(weights) - set(versions)):
        raise VersionNotFound(f"{model.name} has no live version {missing[0]}")
    routes_replace(model, {versions[number]: weight for number, weight in weights.items()})


def routes_replace(model: Model, weights: Mapping[ModelVersion, int]) -> None:
    """Writes the routes. The caller holds the model's lock and has checked the weights."""
    Route.objects.filter(model=model).delete()
    Route.objects.bulk_create(
        Route(model=model, version=version, weight=weight) for version, weight in weights.items() if weight
    )
