"""The models that can be called."""

from django.http import HttpRequest, HttpResponse
from drf_spectacular.utils import extend_schema

from easel.api import schemas
from easel.api.openapi import answers
from easel.api.rendering import model_json
from easel.api.resource import Resource, answer_json
from easel.serving import routing


class Models(Resource):
    @extend_schema(operation_id="models_list", responses=answers(schemas.MODELS))
    def get(self, request: HttpRequest) -> HttpResponse:
        return answer_json({"object": "list", "data": [model_json(version) for version in routing.live_models()]})


class ModelDetail(Resource):
    @extend_schema(operation_id="models_get", responses=answers(schemas.MODEL))
    def get(self, request: HttpRequest, name: str) -> HttpResponse:
        return answer_json(model_json(routing.main_version(name)))
