"""The models that can be called."""

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from easel.api import schemas
from easel.api.openapi import answers
from easel.api.rendering import model_json
from easel.serving import routing


class Models(APIView):
    @extend_schema(operation_id="models_list", responses=answers(schemas.MODELS))
    def get(self, request: Request) -> Response:
        return Response({"object": "list", "data": [model_json(version) for version in routing.live_models()]})


class ModelDetail(APIView):
    @extend_schema(operation_id="models_get", responses=answers(schemas.MODEL))
    def get(self, request: Request, name: str) -> Response:
        return Response(model_json(routing.main_version(name)))
