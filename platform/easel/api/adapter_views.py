"""A tenant's LoRA adapters: upload, list, retire."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request

from core import clock
from easel.api import schemas
from easel.api.openapi import answers
from easel.api.rendering import adapter_json
from easel.api.resource import Resource, answer_json, caller
from easel.api.serializers import AdapterUploadInput
from easel.catalog import adapters
from tenants.models import Scope


class Adapters(Resource):
    scope = Scope.ADAPTERS
    parser_classes = [MultiPartParser]

    @extend_schema(
        operation_id="adapters_upload",
        request={"multipart/form-data": AdapterUploadInput},
        responses=answers(schemas.ADAPTER, status=201),
    )
    def post(self, request: HttpRequest) -> HttpResponse:
        form: Any = Request(request, parsers=[MultiPartParser()]).data  # a QueryDict
        fields = AdapterUploadInput(data=form.dict())
        fields.is_valid(raise_exception=True)
        given = fields.validated_data
        version = adapters.adapter_add_version(
            project=caller(request).project,
            name=given["name"],
            data=given["file"].read(),
            model_name=given.get("model"),
            bytes_max=settings.EASEL.adapter_bytes_max,
            rank_max=settings.EASEL.adapter_rank_max,
            now=clock.now(),
        )
        adapter = adapters.adapter_get(tenant=caller(request).tenant, name=version.adapter.name)
        return answer_json(adapter_json(adapter), status=201)

    @extend_schema(operation_id="adapters_list", responses=answers(schemas.ADAPTERS))
    def get(self, request: HttpRequest) -> HttpResponse:
        rows = caller(request).tenant.adapters.select_related("model").prefetch_related("versions").order_by("name")
        return answer_json({"object": "list", "data": [adapter_json(adapter) for adapter in rows]})


class AdapterDetail(Resource):
    scope = Scope.ADAPTERS

    @extend_schema(operation_id="adapters_get", responses=answers(schemas.ADAPTER))
    def get(self, request: HttpRequest, name: str) -> HttpResponse:
        return answer_json(adapter_json(adapters.adapter_get(tenant=caller(request).tenant, name=name)))

    @extend_schema(operation_id="adapters_retire", responses=answers(schemas.ADAPTER))
    def delete(self, request: HttpRequest, name: str) -> HttpResponse:
        return answer_json(
            adapter_json(adapters.adapter_retire(tenant=caller(request).tenant, name=name, now=clock.now()))
        )
