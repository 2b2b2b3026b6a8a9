"""The models that can be called. (Django would take a module named `models` for the tables of this app.)"""

from typing import Annotated

from django.http import HttpRequest, HttpResponse
from typing_extensions import TypedDict

from easel.api.declaration import OneOf
from easel.api.endpoint import endpoint
from easel.api.resource import answer_json, caller
from easel.api.rows import Listed, listed, row_json
from easel.catalog.errors import ModelNotFound
from easel.catalog.models import ModelVersion
from easel.serving import routing
from easel.serving.aliases import aliases_of
from easel.serving.models import Alias
from easel.serving.tiers import TIERS_NAMED, Quality, steps_of


class QualityAnswer(TypedDict):
    """A quality, its tier and its steps. The size decides for a quality without a tier."""

    quality: Annotated[str, OneOf(Quality.values)]
    tier: str | None
    steps: int


class ModelAnswer(TypedDict):
    """OpenAI's `Model`, with its sizes, steps and qualities. An alias has those of the model that it stands for."""

    id: str
    object: str
    created: int
    owned_by: str
    alias_of: str | None
    version: int
    default: bool
    size_default: str
    side_min: int
    side_max: int
    steps_default: int
    steps_max: int
    qualities: list[QualityAnswer]
    fast_image_units_max: float


@endpoint("get", "models_list", Listed[ModelAnswer])
def models(request: HttpRequest) -> HttpResponse:
    """List the models and aliases that your requests may name, each with its sizes, steps and qualities."""
    found = routing.listed_models(caller(request).tenant)
    return answer_json(listed([model_json(one.version, alias=one.alias) for one in found]))


@endpoint("get", "models_get", ModelAnswer, errors=(ModelNotFound,))
def model_detail(request: HttpRequest, name: str) -> HttpResponse:
    """Show a model, or the model that an alias stands for, with its sizes, steps and qualities."""
    tenant = caller(request).tenant
    alias = aliases_of(tenant).get(name)
    return answer_json(model_json(routing.main_version(name, tenant=tenant), alias=alias))


def model_json(version: ModelVersion, *, alias: Alias | None = None) -> ModelAnswer:
    return row_json(
        ModelAnswer,
        version,
        id=(alias or version.model).name,
        object="model",
        created=int((alias or version.model).created_at.timestamp()),
        owned_by="easel",
        version=version.number,
        alias_of=version.model.name if alias else None,
        default=version.model.is_default and alias is None,
        qualities=[
            {"quality": quality, "tier": TIERS_NAMED.get(quality), "steps": steps_of(version, quality=quality)}
            for quality in Quality.values
        ],
        fast_image_units_max=float(version.fast_image_units_max),
    )
