"""Which version of a model serves a request."""

from easel.registry.errors import ModelNotFound
from easel.registry.models import ModelVersion


def version_for(model_name: str | None) -> ModelVersion:
    """The newest live version of the named model, or of the default one. Raises `ModelNotFound`."""
    query = ModelVersion.objects.select_related("model", "pool").filter(retired_at=None)
    query = query.filter(model__name=model_name) if model_name else query.filter(model__is_default=True)
    version = query.order_by("-number").first()
    if version is None:
        wanted = f"model {model_name!r}" if model_name else "default model"
        raise ModelNotFound(f"there is no {wanted}: GET /v1/models lists what can be called", param="model")
    return version


def live_models() -> list[ModelVersion]:
    """The version that serves each model, by model name."""
    versions = ModelVersion.objects.select_related("model").filter(retired_at=None)
    return list(versions.order_by("model__name", "-number").distinct("model__name"))
