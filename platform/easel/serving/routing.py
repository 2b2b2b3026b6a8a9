"""Routing: assigns each caller of a model to a version by the model's weights, always to the same one.

A caller is hashed to one of 100 buckets, which the versions share by their weights.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from django.db import transaction
from django.db.models import F, Q

from core.revision import cached_by_revision
from easel.catalog.errors import ModelNotFound, VersionNotFound
from easel.catalog.models import Model, ModelVersion, Pool, PoolTier
from easel.serving.aliases import aliases_of, nearest_name
from easel.serving.errors import RolloutRunning, WeightsInvalid
from easel.serving.models import Alias, Rollout, Route
from tenants.models import ListedModels, Tenant

T = TypeVar("T")


@cached_by_revision
def model_get(name: str | None, *, tenant: Tenant | None = None) -> Model:
    """Find the model of a name or alias, or the default one. `tenant` is whose aliases count beside the platform's.

    Raises `ModelNotFound`, also for a model that no version serves.
    """
    alias = aliases_of(tenant).get(name) if name else None
    wanted = alias.model.name if alias else name
    query = Model.objects.filter(name=wanted) if wanted else Model.objects.filter(is_default=True)
    model = query.filter(routes__isnull=False).first()
    if model is not None:
        return model
    if name is None:
        raise ModelNotFound("there is no default model: GET /v1/models lists the models", param="model")
    if alias is not None:
        raise ModelNotFound(f"{name!r} stands for {wanted!r}, which no version serves any more", param="model")
    if Model.objects.filter(name=name).exists():
        raise ModelNotFound(f"no version serves {name!r} any more", param="model")
    near = nearest_name(name, [listed.name for listed in listed_models(tenant)])
    hint = f"did you mean {near}? " if near else ""
    raise ModelNotFound(f"there is no model {name!r}: {hint}GET /v1/models lists the models", param="model")


def version_for(model: Model, *, caller: str) -> ModelVersion:
    """Find the version that serves a caller; it changes only with the weights. Raises `ModelNotFound`.

    The newest version has the first buckets, so that a canary whose share grows keeps its callers.
    """
    shares = _newest_first(model)
    if not shares:
        raise ModelNotFound(f"no version serves {model.name!r} any more", param="model")
    if len(shares) == 1:  # no rollout divides the callers
        return shares[0][0]
    return share_of(shares, bucket=bucket_of(f"model {model.name}", caller))


@cached_by_revision
def _newest_first(model: Model) -> list[tuple[ModelVersion, int]]:
    routes = Route.objects.filter(model=model).select_related("version__model", "version__pool")
    return [(route.version, route.weight) for route in routes.order_by("-version__number")]


@cached_by_revision
def pool_for(version: ModelVersion, *, tenant: Tenant, tier: PoolTier) -> Pool:
    """Find the pool for a tenant's jobs of a version.

    That is the tenant's dedicated pool if it holds the version's weights, else the tier's, else the version's own.
    """
    with_weights = Pool.objects.filter(checkpoint=version.checkpoint, precision=version.precision)
    candidates = with_weights.filter(Q(tenant=tenant) | Q(tenant=None, tier=tier))
    return candidates.order_by(F("tenant").asc(nulls_last=True)).first() or version.pool


def main_version(name: str | None, *, tenant: Tenant | None = None) -> ModelVersion:
    """Find the version with the largest weight, whose limits describe the model. `model_get` finds the model.

    Raises `ModelNotFound`.
    """
    routes = Route.objects.filter(model=model_get(name, tenant=tenant)).select_related(
        "version__model", "version__pool"
    )
    return routes.order_by("-weight", "-version__number")[0].version


def live_models() -> list[ModelVersion]:
    """List the main version of each model that a version serves, by model name."""
    routes = Route.objects.select_related("version__model").order_by("model__name", "-weight", "-version__number")
    return [route.version for route in routes.distinct("model__name")]


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A name that requests may give, and the version whose limits describe it."""

    name: str
    version: ModelVersion
    alias: Alias | None = None


def listed_models(tenant: Tenant | None) -> list[ListedModel]:
    """List the names that a tenant's requests may give, as far as its policy shows them: models, then aliases."""
    live = live_models()
    listed = ListedModels(tenant.listed_models) if tenant else ListedModels.ALL
    found = [] if listed == ListedModels.ALIASES else [ListedModel(one.model.name, one) for one in live]
    if listed != ListedModels.MODELS:
        served = {version.model_id: version for version in live}
        aliases = sorted(aliases_of(tenant).values(), key=lambda alias: alias.name)
        found += [ListedModel(one.name, served[one.model_id], one) for one in aliases if one.model_id in served]
    return found


def bucket_of(salt: str, caller: str) -> int:
    """Return the caller's bucket from 0 to 99: the first 64 bits of a SHA-256 hash modulo 100."""
    digest = hashlib.sha256(f"{salt}\0{caller}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % 100


def share_of(shares: Sequence[tuple[T, int]], *, bucket: int) -> T:
    """Find the item whose part of the buckets contains `bucket`; `shares` are (item, percent) and sum to 100."""
    end = 0
    for item, weight in shares:
        end += weight
        if bucket < end:
            return item
    raise ValueError(f"shares sum to {end}, not to 100")


def weights_check(weights: Sequence[int]) -> None:
    """Raise `WeightsInvalid` unless the weights are percents that sum to 100."""
    if any(weight < 1 or weight > 100 for weight in weights):
        raise WeightsInvalid(f"a weight must be a whole percent from 1 to 100: {list(weights)}", param="weight")
    if sum(weights) != 100:
        raise WeightsInvalid(f"the weights sum to {sum(weights)}; they must sum to 100", param="weight")


@transaction.atomic
def routes_set(*, model: Model, weights: Mapping[int, int]) -> None:
    """Routes a model's callers to versions, in percent by version number.

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
    """Replace the routes. The calling function must have locked the model and checked the weights."""
    Route.objects.filter(model=model).delete()
    shares = [Route(model=model, version=version, weight=weight) for version, weight in weights.items() if weight]
    Route.objects.bulk_create(shares)
