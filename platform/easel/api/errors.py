"""Turns every error into OpenAI's error body: `{"error": {"message", "type", "param", "code"}}`."""

from typing import Any, Self
from uuid import UUID

import structlog
from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, JsonResponse
from redis.exceptions import RedisError
from rest_framework import exceptions

from core.errors import DomainError

log = structlog.get_logger()


class InvalidJson(DomainError, code="invalid_json"):
    """The body is not JSON."""


class InvalidField(DomainError):
    """A field of the body or of the query string is missing, unknown or wrong."""

    def __init__(self, message: str, *, param: str | None, code: str = "invalid_value") -> None:
        super().__init__(message, param=param)
        self.code = code


class BodyTooLarge(DomainError, code="body_too_large", http_status=413):
    """The request's body is over the limit."""


class UnsupportedParameter(DomainError, code="unsupported_parameter"):
    """This parameter has a value that is not supported."""


class StillRunning(DomainError, code="timeout", type="server_error", http_status=504):
    """The image is not ready yet: read the job instead."""

    @classmethod
    def of(cls, job_id: UUID) -> Self:
        return cls(f"the job {job_id} is not finished yet: read GET /v1/jobs/{job_id}")


class Unavailable(DomainError):
    """The service can't reach its database for the moment: try again shortly."""

    code, type, http_status, retryable, retry_after_seconds = "unavailable", "server_error", 503, True, 2


def body(message: str, *, type_: str, code: str, param: str | None = None) -> dict[str, Any]:
    param = None if param is None else _encodable(param)
    return {"error": {"message": _encodable(message), "type": type_, "param": param, "code": code}}


def _encodable(text: str) -> str:
    """Return the text with lone surrogates, which JSON can spell and UTF-8 can't hold, written as escapes."""
    return text.encode(errors="backslashreplace").decode()


def handle(error: Exception, context: Any = None) -> JsonResponse | None:
    """Return the answer to a refusal; None leaves any other error to `server_error`, with its stack in the log."""
    if isinstance(error, OperationalError | InterfaceError | RedisError):
        log.warning("dependency_unavailable", error=repr(error))
        error = Unavailable()
    if isinstance(error, RequestDataTooBig):
        error = BodyTooLarge()
    if isinstance(error, InvalidField):
        return _json(error_body(error), status=400)
    if isinstance(error, DomainError):
        return refusal_json(error)
    if isinstance(error, exceptions.APIException):
        code = {404: "not_found", 405: "method_not_allowed", 415: "unsupported_media_type"}.get(
            error.status_code, "invalid_request"
        )
        return _json(body(str(error.detail), type_="invalid_request_error", code=code), status=error.status_code)
    return None


def refusal_json(error: DomainError) -> JsonResponse:
    """Return the answer to a refusal, with the headers that tell a client whether to try again."""
    headers = {"x-should-retry": "true" if error.retryable else "false"}
    if error.http_status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    return _json(error_body(error), status=error.http_status, headers=headers)


def _json(data: dict[str, Any], **options: Any) -> JsonResponse:
    return JsonResponse(data, json_dumps_params={"ensure_ascii": False, "separators": (",", ":")}, **options)


def error_body(error: DomainError) -> dict[str, Any]:
    return body(str(error), type_=error.type, code=error.code, param=error.param)


def not_found(request: HttpRequest, exception: Exception) -> JsonResponse:
    message = f"there is no {request.method} {request.path}: /v1/openapi.json lists all calls"
    return JsonResponse(body(message, type_="invalid_request_error", code="not_found"), status=404)


def bad_request(request: HttpRequest | None, exception: Exception | None) -> JsonResponse:
    """Return the answer to what Django itself refuses, for example a query of a thousand fields."""
    message = "the request is malformed or has too many fields"
    return JsonResponse(body(message, type_="invalid_request_error", code="invalid_request"), status=400)


def server_error(request: HttpRequest) -> JsonResponse:
    message = "something broke on our side; tell us the X-Request-Id of this answer"
    # A POST may have created its job before it broke: a client library that repeats it would pay for another.
    headers = {"x-should-retry": "false"} if request.method == "POST" else None
    return JsonResponse(body(message, type_="server_error", code="internal_error"), status=500, headers=headers)
