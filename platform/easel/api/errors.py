"""Turns every error into OpenAI's error body: `{"error": {"message", "type", "param", "code"}}`."""

import math
from typing import Any, Self
from uuid import UUID

import structlog
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, JsonResponse
from django.urls import Resolver404, resolve
from redis.exceptions import RedisError
from rest_framework import exceptions

from core.errors import DomainError, NotFound
from core.text import text_encodable
from easel.api.azure import path_asked
from easel.jobs.queue_place import QueuePlace

log = structlog.get_logger()
LOOK_AGAIN_SECONDS, LOOK_AGAIN_SECONDS_MAX = 5, 60  # where nobody can say when a job ends, and at most


class InvalidJson(DomainError, code="invalid_json"):
    """The body is not JSON.

    Send one JSON document in UTF-8, without NaN and Infinity.
    """


class InvalidField(DomainError, code="invalid_value"):
    """A field of the body or of the query string has a value that can't be taken.

    Correct the field that `param` names, as the message says.
    """

    def __init__(self, message: str = "", *, param: str | None) -> None:
        super().__init__(message, param=param)


class MissingParameter(InvalidField, code="missing_required_parameter"):
    """A required field is missing.

    Send the field that `param` names.
    """


class UnknownField(InvalidField, code="unknown_field"):
    """The body or the query string has a field that is not known here.

    Correct the name of the field, or leave it out. The message names the field that was probably meant.
    """


class MalformedRequest(DomainError, code="invalid_request"):
    """The request is malformed or has too many fields.

    Send well-formed HTTP with fewer fields.
    """


class MethodNotAllowed(DomainError, code="method_not_allowed", http_status=405):
    """This path has no such method.

    Send one of the methods that the header `Allow` lists.
    """


class NotAcceptable(DomainError, code="not_acceptable", http_status=406):
    """The answer has none of the media types of the request's `Accept`.

    Send `Accept: application/json`, or leave the header out.
    """


class UnsupportedMediaType(DomainError, code="unsupported_media_type", http_status=415):
    """The body has a media type that this call doesn't take.

    Send `Content-Type: application/json`, or a multipart form where the call takes a file.
    """


class InternalError(DomainError, code="internal_error", type="server_error", http_status=500):
    """Something broke on our side; tell us the X-Request-Id of this answer.

    Tell the operator the X-Request-Id. After a POST, read `GET /v1/jobs` before you repeat it: it may have worked.
    """


class BodyTooLarge(DomainError, code="body_too_large", http_status=413):
    """The request's body is over the limit.

    Send a smaller body; the message states the limit.
    """


class HeadTooLarge(DomainError, code="head_too_large", http_status=431):
    """The request's line and headers are over the limit.

    Send a shorter URL, and fewer or shorter headers; the message states the limits.
    """


class RequestTimeout(DomainError, code="request_timeout", http_status=408, retryable=True):
    """The request did not come whole within its time.

    Send the same request again, over a faster connection if the body is large; the message states the time.
    """


class TooManyConnections(DomainError, type="server_error"):
    """There are too many connections, of all clients together or from your address.

    Use fewer connections, each for many requests, and repeat the request after the seconds of `Retry-After`.
    """

    code, http_status, retryable, retry_after_seconds = "too_many_connections", 503, True, 2


class UnsupportedParameter(DomainError, code="unsupported_parameter"):
    """This parameter has a value that is not supported.

    Leave the parameter out, or send the value that the message names.
    """


class StillRunning(DomainError, code="timeout", type="server_error", http_status=504):
    """The image is not ready yet: read the job instead.

    Read the job that the message and `Location` name, after the seconds of `Retry-After`, until it has ended; don't
    send the request again.
    """

    @classmethod
    def of(cls, job_id: UUID, *, place: QueuePlace | None = None) -> Self:
        found = []
        if place and place["position"] is not None:
            found.append(f"position {place['position']} of its queue")
        if place and place["eta_seconds"] is not None:
            found.append(f"about {math.ceil(place['eta_seconds'])} s to go")
        where = f" ({', '.join(found)})" if found else ""
        url = f"{settings.EASEL.public_url}/v1/jobs/{job_id}"
        refusal = cls(f"the job {job_id} is not finished yet{where}: read GET {url}")
        refusal.location = url
        eta_seconds = place["eta_seconds"] if place else None
        seconds = LOOK_AGAIN_SECONDS if eta_seconds is None else max(1, math.ceil(eta_seconds))
        refusal.retry_after_seconds = min(seconds, LOOK_AGAIN_SECONDS_MAX)
        return refusal


class Unavailable(DomainError):
    """The service can't reach its database for the moment: try again shortly.

    Repeat the request after the seconds of `Retry-After`.
    """

    code, type, http_status, retryable, retry_after_seconds = "unavailable", "server_error", 503, True, 2


_OF_DRF: dict[int, type[DomainError]] = {
    kind.http_status: kind for kind in (NotFound, MethodNotAllowed, NotAcceptable, UnsupportedMediaType)
}


def handle(error: Exception, context: Any = None) -> JsonResponse | None:
    """Return the answer to a refusal; None leaves any other error to `server_error`, with its stack in the log."""
    if isinstance(error, OperationalError | InterfaceError | RedisError):
        log.warning("dependency_unavailable", error=repr(error))
        error = Unavailable()
    if isinstance(error, RequestDataTooBig):
        error = BodyTooLarge()
    if isinstance(error, exceptions.APIException):
        error = _OF_DRF.get(error.status_code, MalformedRequest)(str(error.detail))
    return refusal_json(error) if isinstance(error, DomainError) else None


def refusal_json(error: DomainError) -> JsonResponse:
    """Return the answer to a refusal, with the headers that tell a client whether to try again."""
    headers = {"x-should-retry": "true" if error.retryable else "false"}
    if error.http_status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    if error.location is not None:
        headers["Location"] = error.location
    return _json(error_body(error), status=error.http_status, headers=headers)


def _json(data: dict[str, Any], **options: Any) -> JsonResponse:
    return JsonResponse(data, json_dumps_params={"ensure_ascii": False, "separators": (",", ":")}, **options)


def error_body(error: DomainError) -> dict[str, Any]:
    param = None if error.param is None else text_encodable(error.param)
    return {"error": {"message": text_encodable(str(error)), "type": error.type, "param": param, "code": error.code}}


def not_found(request: HttpRequest, exception: Exception) -> JsonResponse:
    asked = path_asked(request)
    hint = "/v1/openapi.json lists all calls"
    if asked.startswith("/openai/deployments"):
        hint = (
            "a deployment has images/generations alone, and /openai/models lists the models and aliases to name there"
        )
    elif _is_call(f"/v1{asked}"):  # OpenAI's clients add the path to their base URL
        hint = f"did you mean /v1{asked}? The base URL of a client ends in /v1"
    return refusal_json(NotFound(f"there is no {request.method} {asked}: {hint}"))


def _is_call(path: str) -> bool:
    try:
        return resolve(path).func is not not_found
    except Resolver404:
        return False


def bad_request(request: HttpRequest | None, exception: Exception | None) -> JsonResponse:
    """Return the answer to what Django itself refuses, for example a query of a thousand fields."""
    return refusal_json(MalformedRequest())


def server_error(request: HttpRequest) -> JsonResponse:
    answer = refusal_json(InternalError())
    # A POST may have created its job before it broke: a client library that repeats it would pay for another.
    if request.method != "POST":
        del answer["x-should-retry"]
    return answer
