"""The OpenAPI document, made from the routes under /v1 and the operations that their handlers declare."""

import inspect
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from importlib.resources import files
from typing import Any, NamedTuple

from django.urls import URLPattern

from core.errors import DomainError, IdempotencyKeyReused, text_of
from easel.api import errors
from easel.api.declaration import OCTETS, Error, ErrorEvent, Operation, Schema, UrlQuery
from easel.api.document_texts import DESCRIPTION, HEADERS, PARAMETERS, PATH_PARAMETERS, SECURITY, TAGS
from easel.api.rate_limit import RateLimited
from easel.api.resource import Resource
from easel.api.schemas import query_fields, schemas_of
from easel.api.webhook_payloads import PAYLOADS
from tenants.errors import AddressNotAllowed, InvalidApiKey, KeyExpired, ScopeMissing, TenantSuspended

METHODS = ("get", "put", "post", "patch", "delete")
_STREAM = "text/event-stream"
_KINDS: dict[str, Schema] = {
    "uuid": {"type": "string", "format": "uuid"},
    "int": {"type": "integer", "minimum": 0},
    "document": {"type": "string", "enum": ["html", "pdf", "csv"]},
}


class Route(NamedTuple):
    """An operation with its path, its method and its resource."""

    path: str
    parameters: dict[str, str]
    method: str
    resource: type[Resource]
    operation: Operation
    text: str


def routes_of(patterns: Sequence[URLPattern]) -> Iterator[Route]:
    """Yield the operations of the routes that have a resource."""
    for pattern in patterns:
        resource: Any = getattr(pattern.callback, "cls", None)
        route = str(pattern.pattern)
        for method in METHODS if resource is not None else ():
            if handler := getattr(resource, method, None):
                yield Route(
                    path=("/v1/" + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route)).rstrip("/"),
                    parameters={name: kind for kind, name in re.findall(r"<(?:(\w+):)?(\w+)>", route)},
                    method=method,
                    resource=resource,
                    operation=handler.operation,
                    text=inspect.cleandoc(handler.__doc__ or ""),
                )


def document(patterns: Sequence[URLPattern], *, server_url: str) -> dict[str, Any]:
    """Return the document as JSON."""
    routes = list(routes_of(patterns))
    schemas, components = schemas_of(_declared(routes))
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for route in routes:
        paths[route.path][route.method] = _operation_json(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Easel",
            "version": version("easel"),
            "summary": "Text-to-image generation for many tenants, compatible with OpenAI's Images API.",
            "description": DESCRIPTION,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": server_url, "description": "This platform."}],
        "security": [{name: []} for name in SECURITY],
        "tags": [{"name": name, "description": text} for name, text in dict.fromkeys(TAGS.values())],
        "paths": dict(paths),
        "webhooks": {event: _webhook_json(event, schemas[payload]) for event, payload in PAYLOADS.items()},
        "components": {
            "schemas": components,
            "parameters": PARAMETERS,
            "headers": HEADERS,
            "securitySchemes": SECURITY,
        },
    }


def errors_of(route: Route) -> dict[int, list[type[DomainError]]]:
    """Return what can refuse a call, by status: its own errors, and those of its key, its body and its query."""
    operation = route.operation
    found: set[type[DomainError]] = set(operation.errors)
    found |= {errors.InternalError, errors.NotAcceptable, errors.MalformedRequest}
    if not route.resource.is_public:
        found |= {InvalidApiKey, KeyExpired, TenantSuspended, AddressNotAllowed, errors.Unavailable}
    if _scopes(route):
        found.add(ScopeMissing)
    if operation.request:
        found |= {errors.InvalidField, errors.MissingParameter, errors.UnknownField}
        found |= {
            errors.BodyTooLarge,
            errors.RequestTimeout,
            errors.UnsupportedMediaType,
            *([] if operation.is_form else [errors.InvalidJson]),
        }
    if operation.query:
        found |= {errors.InvalidField, errors.UnknownField}
    by_status: dict[int, list[type[DomainError]]] = defaultdict(list)
    for error in sorted(found, key=lambda error: (error.http_status, error.code)):
        by_status[error.http_status].append(error)
    return by_status


def _declared(routes: Iterable[Route]) -> Iterator[Any]:
    yield from (Error, ErrorEvent, *PAYLOADS.values())
    for route in routes:
        operation = route.operation
        yield from (one for one in (operation.answer, operation.request) if one is not None)
        yield from operation.events.values()


def _scopes(route: Route) -> tuple[str, ...]:
    return route.resource().scopes_of(route.method.upper())


def _operation_json(route: Route, schemas: dict[Any, Schema]) -> dict[str, Any]:
    operation, scopes = route.operation, _scopes(route)
    example = _stored("examples.json").get(operation.name, {})
    needs = "No key is needed." if route.resource.is_public else ""
    if scopes:
        needs = f"The key needs the scope {' or '.join(f'`{scope}`' for scope in scopes)}."
    found: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [TAGS[route.path.removeprefix("/v1").lstrip("/").partition("/")[0]][0]],
        "summary": summary_of(route.text),
        "description": "\n\n".join(text for text in (route.text, needs) if text),
        "parameters": list(_parameters(route)),
        "responses": _responses(route, schemas),
    }
    if operation.request:
        media_type = "multipart/form-data" if operation.is_form else "application/json"
        content: dict[str, Any] = {"schema": schemas[operation.request]}
        if "request" in example:
            content["examples"] = {"example": {"value": example["request"]}}
        found["requestBody"] = {"required": True, "content": {media_type: content}}
    if route.resource.is_public:
        found["security"] = []
    if scopes:
        found["x-scopes"] = list(scopes)
    if operation.is_deprecated:
        found["deprecated"] = True
    return found


def summary_of(text: str) -> str:
    """Return the first sentence of a handler's docstring."""
    return re.split(r"(?<=[^.])\.(?:\s|$)|[:;] ", " ".join(text.split()), maxsplit=1)[0].rstrip(".")


def _parameters(route: Route) -> Iterator[dict[str, Any]]:
    for name, kind in route.parameters.items():
        schema = _KINDS.get(kind, {"type": "string"})
        yield {"name": name, "in": "path", "required": True, "schema": schema, "description": PATH_PARAMETERS[name]}
    if route.operation.query:
        yield from _query_parameters(route.operation.query)
    for header in ("X-Request-Id", *_request_headers(route.operation)):
        yield {"$ref": f"#/components/parameters/{header}"}


def _query_parameters(query: type[UrlQuery]) -> Iterator[dict[str, Any]]:
    fields, required = query_fields(query)
    for name, field in fields.items():
        text = field.pop("description", "")
        yield {"name": name, "in": "query", "required": name in required, "schema": field, "description": text}


def _request_headers(operation: Operation) -> list[str]:
    idempotent = ["Idempotency-Key"] if IdempotencyKeyReused in operation.errors else []
    return [*idempotent, *(["Last-Event-ID"] if operation.events and not operation.answer else [])]


def _response_headers(operation: Operation, status: int) -> dict[str, Schema]:
    names = ["X-Request-Id"]
    if RateLimited in operation.errors and status not in (401, 403):
        names += ["RateLimit", "RateLimit-Policy", "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests"]
        names += ["x-ratelimit-reset-requests"]
    if status >= 400:
        names += ["x-should-retry", *(["Retry-After"] if status in (429, 503, 504) else [])]
        names += ["Location"] if status == 504 else []
        names += ["WWW-Authenticate"] if status == 401 else []
    else:
        names += operation.headers
        names += ["Content-Disposition"] if operation.files else []
    if IdempotencyKeyReused in operation.errors and status not in (401, 403):
        names.append("Idempotent-Replayed")
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _responses(route: Route, schemas: dict[Any, Schema]) -> dict[str, Any]:
    operation = route.operation
    content: dict[str, Any] = {}
    if operation.answer is not None:
        content["application/json"] = {"schema": schemas[operation.answer]}
    if operation.files:
        binary = {"schema": {"type": "string", "format": "binary"}}
        is_text = all(name.startswith("text/") for name in operation.files)
        content |= {} if is_text else {OCTETS: binary}  # first: client generators know no other type of file
        content |= {
            name: {"schema": {"type": "string"}} if name.startswith("text/") else binary for name in operation.files
        }
    if operation.events:
        names = ", ".join(f"`{name}`" for name in operation.events)
        content[_STREAM] = {
            "schema": {"type": "string", "description": f"Server-sent events, each with JSON as its data: {names}."},
            "x-events": {name: schemas[data] for name, data in operation.events.items()},
        }
    found = {
        str(operation.status): _response(HTTPStatus(operation.status).phrase, operation, operation.status, content)
    }
    for status, kinds in errors_of(route).items():
        text = f"{HTTPStatus(status).phrase}.\n\n" + "\n".join(f"- `{kind.code}`: {text_of(kind)}" for kind in kinds)
        found[str(status)] = _response(text, operation, status, {"application/json": {"schema": schemas[Error]}})
        found[str(status)]["x-error-codes"] = [kind.code for kind in kinds]
    for code, by_type in _stored("answers.json").get(operation.name, {}).items():
        for media_type, value in by_type.items():
            found[code]["content"][media_type]["examples"] = {"example": {"value": value}}
    return found


def _response(text: str, operation: Operation, status: int, content: dict[str, Any]) -> dict[str, Any]:
    headers = _response_headers(operation, status)
    return {"description": text, "headers": headers, **({"content": content} if content else {})}


def _webhook_json(event: str, payload: Schema) -> dict[str, Any]:
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    return {
        "post": {
            "operationId": "webhook_" + event.replace(".", "_"),
            "tags": [TAGS["webhooks"][0]],
            "summary": f"The event {event}",
            "description": "Answer with 2xx. A delivery that fails is repeated for a day, at growing intervals.",
            "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in names],
            "requestBody": {"required": True, "content": {"application/json": {"schema": payload}}},
            "responses": {"2XX": {"description": "The message is accepted."}},
            "security": [],
        }
    }


@cache
def _stored(name: str) -> dict[str, dict[str, Any]]:
    """Return examples by operation: of requests, or of answers by status and media type, which the tests record."""
    found: dict[str, dict[str, Any]] = json.loads(files("easel.api").joinpath(name).read_text())
    return found
