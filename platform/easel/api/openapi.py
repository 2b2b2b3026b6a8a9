"""The terms in which `schemas.py` and `money_schemas.py` say what answers look like, for `/v1/openapi.json`."""

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiResponse
from rest_framework.authentication import BaseAuthentication

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
TIME: Schema = {"type": "string", "format": "date-time"}
DAY: Schema = {"type": "string", "format": "date"}


def object_of(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def list_of(item: Schema, **more: Schema) -> Schema:
    return object_of(object=TEXT, data={"type": "array", "items": item}, **more)


def or_null(schema: Schema) -> Schema:
    return {**schema, "nullable": True}


MONEY = object_of(amount=TEXT, amount_micros=WHOLE, currency=TEXT)
ERROR = object_of(error=object_of(message=TEXT, type=TEXT, param=or_null(TEXT), code=TEXT))


def events(description: str) -> dict[Any, OpenApiResponse]:
    """The response of a call that answers with server-sent events."""
    return {(200, "text/event-stream"): OpenApiResponse(TEXT, description=description)}


def answers(schema: Schema, *, status: int = 200) -> dict[Any, OpenApiResponse]:
    """The responses of a call: what it gives, and the error body that every call shares."""
    return {
        status: OpenApiResponse(schema, description=""),
        "default": OpenApiResponse(ERROR, description="A refusal; `code` is stable."),
    }


class ApiKey(BaseAuthentication):
    """The name under which the document finds the scheme below; `easel.api.resource.authenticate` does the work."""


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # registers itself
    target_class = "easel.api.openapi.ApiKey"
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> Schema:
        return {"type": "http", "scheme": "bearer", "description": "An API key, `easel_sk_…`."}
