"""The models that can be called. (Django would take a module named `models` for the tables of this app.)"""

from typing import Annotated

from django.http import HttpRequest, HttpResponse
from typing_extensions import TypedDict

from easel.api.declaration import OneOf
from easel.api.endpoint import endpoint
from easel.api.resource import answer_json
from easel.api.rows import Listed, listed, row_json
from easel.catalog.errors import ModelNotFound
from easel.catalog.models import ModelVersion
from easel.serving import routing
from easel.serving.tiers import TIERS_NAMED, Quality, steps_of


class QualityAnswer(TypedDict):
    """A quality, its tier and its steps. The size decides for a quality without a tier."""

    quality: Annotated[str, OneOf(Quality.values)]
    tier: str | None
    steps: int


class ModelAnswer(TypedDict):
    """OpenAI's `Model`, with its sizes, steps and qualities."""

    id: str
    object: str
    created: int
    owned_by: str
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
    """List the models that serve requests, each with its sizes, steps and qualities."""
    return answer_json(listed([model_json(version) for version in routing.live_models()]))


@endpoint("get", "models_get", ModelAnswer, errors=(ModelNotFound,))
def model_detail(request: HttpRequest, name: str) -> HttpResponse:
    """Show a model with its sizes, steps and qualities."""
    return answer_json(model_json(routing.main_version(name)))


def model_json(version: ModelVersion) -> ModelAnswer:
    return row_json(
        ModelAnswer,
        version,
        id=version.model.name,
        object="model",
        created=int(version.model.created_at.timestamp()),
        owned_by="easel",
        version=version.number,
        default=version.model.is_default,
        qualities=[
            {"quality": quality, "tier": TIERS_NAMED.get(quality), "steps": steps_of(version, quality=quality)}
            for quality in Quality.values
        ],
        fast_image_units_max=float(version.fast_image_units_max),
    )
