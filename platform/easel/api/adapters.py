"""A tenant's LoRA adapters: upload, list, retire."""

from datetime import datetime
from typing import Annotated

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from pydantic import Field
from typing_extensions import TypedDict

from core import clock
from core.errors import declared_errors
from easel.api.declaration import LEFT_OUT, Input, LongPageQuery, OneOf, operation
from easel.api.forms import FormFile, FormText, form_of
from easel.api.resource import Resource, answer_json, caller
from easel.api.rows import Listed, listed, row_json
from easel.catalog import adapters
from easel.catalog.errors import (
    AdapterInUse,
    AdapterNameInvalid,
    AdapterNotFound,
    AdapterRefused,
    AdapterTooLarge,
    ModelNotFound,
)
from easel.catalog.models import Adapter
from easel.serving.experiments import adapter_retire
from easel.serving.routing import main_version
from tenants.models import Scope

UPLOAD_ERRORS = (AdapterNameInvalid, AdapterTooLarge, ModelNotFound, *declared_errors(AdapterRefused))


class AdapterUploadInput(Input):
    name: FormText = Field(max_length=40, description="Lower-case letters, digits and inner hyphens.")
    file: FormFile = Field(description="LoRA weights as safetensors.")
    model: FormText = Field(default=LEFT_OUT, description="The base model that it was trained on.")


class AdapterVersionAnswer(TypedDict):
    version: int
    sha256: str
    size_bytes: int
    rank: int
    modules: int
    created_at: datetime


class AdapterAnswer(TypedDict):
    id: str
    object: str
    name: str
    model: str
    status: Annotated[str, OneOf(("ready", "retired"))]
    created_at: datetime
    versions: list[AdapterVersionAnswer]


class Adapters(Resource):
    scope = Scope.ADAPTERS

    @operation(
        "adapters_upload",
        AdapterAnswer,
        request=AdapterUploadInput,
        is_form=True,
        status=201,
        errors=UPLOAD_ERRORS,
    )
    def post(self, request: HttpRequest) -> HttpResponse:
        """Upload a LoRA adapter as safetensors. Under a name that you have it is the next version."""
        fields = AdapterUploadInput.read(form_of(request))
        version = adapters.adapter_add_version(
            project=caller(request).project,
            name=fields.name,
            data=fields.file.read(),
            base=main_version(fields.model, tenant=caller(request).tenant),
            bytes_max=settings.EASEL.adapter_bytes_max,
            rank_max=settings.EASEL.adapter_rank_max,
            now=clock.now(),
        )
        adapter = adapters.adapter_get(tenant=caller(request).tenant, name=version.adapter.name)
        return answer_json(adapter_json(adapter), status=201)

    @operation("adapters_list", Listed[AdapterAnswer], query=LongPageQuery, errors=(AdapterNotFound,))
    def get(self, request: HttpRequest) -> HttpResponse:
        """List your adapters by name, each with its versions."""
        query = LongPageQuery.read(request.GET.dict())
        found, more = adapters.adapters_page(tenant=caller(request).tenant, **query.page())
        return answer_json(listed([adapter_json(adapter) for adapter in found], has_more=more))


class AdapterDetail(Resource):
    scope = Scope.ADAPTERS

    @operation("adapters_get", AdapterAnswer, errors=(AdapterNotFound,))
    def get(self, request: HttpRequest, name: str) -> HttpResponse:
        """Show an adapter with its versions."""
        return answer_json(adapter_json(adapters.adapter_get(tenant=caller(request).tenant, name=name)))

    @operation("adapters_retire", AdapterAnswer, errors=(AdapterNotFound, AdapterInUse))
    def delete(self, request: HttpRequest, name: str) -> HttpResponse:
        """Retire an adapter. New requests can't use it; an upload under its name brings it back."""
        adapter = adapter_retire(tenant=caller(request).tenant, name=name, now=clock.now())
        return answer_json(adapter_json(adapter))


def adapter_json(adapter: Adapter) -> AdapterAnswer:
    versions = sorted(adapter.versions.all(), key=lambda version: version.number)
    return row_json(
        AdapterAnswer,
        adapter,
        object="adapter",
        model=adapter.model.name,
        status="retired" if adapter.retired_at else "ready",
        versions=[
            row_json(AdapterVersionAnswer, one, version=one.number, sha256=one.upload_sha256, rank=one.rank_max)
            for one in versions
        ],
    )
