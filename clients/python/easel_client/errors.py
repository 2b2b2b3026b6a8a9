"""The errors that the client raises. Each has a stable `code` and says if a retry can help."""

from collections.abc import Mapping
from typing import Any

import httpx


class EaselError(Exception):
    """The base of every error of this package.

    `code` is stable, the message may change. `request_id` finds the request in the server's logs.
    """

    code = "error"
    retryable = False

    def __init__(self, message: str, *, code: str | None = None, request_id: str | None = None) -> None:
        super().__init__(message)
        self.code = code or self.code
        self.request_id = request_id


class Unreachable(EaselError):
    """No answer came: the connection failed, broke off or took too long."""

    code = "unreachable"
    retryable = True


class NotEasel(EaselError):
    """The answer is not the API's: `url` leads to something else."""

    code = "not_easel"


class JobFailed(EaselError):
    """A job ended without images. `job` is the job as the API shows it; it costs nothing."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        error = job["error"] or {"code": f"job_{job['status']}", "message": f"the job was {job['status']}"}
        super().__init__(f"job {job['id']}: {error['message']}", code=error["code"])
        self.job = job


class Refused(EaselError):
    """The API refused a request. `param` names the field at fault; `body` is the whole answer."""

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int,
        type: str = "",  # noqa: A002 - as the API names it
        param: str | None = None,
        request_id: str | None = None,
        retryable: bool = False,
        retry_after_seconds: float | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, code=code, request_id=request_id)
        self.status = status
        self.type = type
        self.param = param
        self.retryable = retryable
        self.retry_after_seconds = retry_after_seconds
        self.body = body or {}


class InvalidRequest(Refused):
    """The request is at fault: a field is missing, unknown or wrong (400, 413, 415, 422)."""


class AuthenticationFailed(Refused):
    """The key is missing, wrong or revoked (401)."""


class PermissionDenied(Refused):
    """The key lacks a scope, or the account is suspended (403)."""


class NotFound(Refused):
    """There is no such thing, or it was deleted (404, 410)."""


class Conflict(Refused):
    """The thing is in a state that doesn't allow this (409)."""


class LimitReached(Refused):
    """A limit is reached for now, and the same request will be taken later (429)."""


class QuotaExhausted(Refused):
    """Credit, a budget or a monthly quota is used up: waiting a moment doesn't help (429)."""


class ServerError(Refused):
    """The server is at fault, or doesn't reach what it needs (5xx)."""


_BY_STATUS: dict[int, type[Refused]] = {
    401: AuthenticationFailed,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    429: LimitReached,
}


def refusal_of(response: httpx.Response, *, repeatable: bool) -> EaselError:
    """Return the error of an answer with a status from 400 on, whose body has been read.

    The header `x-should-retry` decides if a retry can help. An answer without it may be a proxy's: then a 502, 503 or
    504 is worth a retry if the request is `repeatable`, that is, has the same effect when it is sent twice.
    """
    status, request_id = response.status_code, response.headers.get("X-Request-Id")
    try:
        error = response.json()["error"]
        message, code, kind, param = str(error["message"]), str(error["code"]), error.get("type"), error.get("param")
    except (ValueError, KeyError, TypeError):
        if status < 500 and status != 429:
            found = f"{response.request.url} answered with HTTP {status} and without Easel's error body"
            return NotEasel(found, request_id=request_id)
        message, code, kind, param = f"HTTP {status} {response.reason_phrase}".strip(), f"http_{status}", None, None
    should_retry = response.headers.get("x-should-retry")
    retryable = should_retry == "true" if should_retry else status in (429, 502, 503, 504) and repeatable
    kind = kind or ""
    made = _BY_STATUS.get(status, ServerError if status >= 500 else InvalidRequest)
    if status == 429 and (kind == "insufficient_quota" or not retryable):
        made = QuotaExhausted
    return made(
        message,
        code=code,
        status=status,
        type=kind,
        param=param,
        request_id=request_id,
        retryable=retryable,
        retry_after_seconds=_seconds(response.headers.get("Retry-After")),
        body=response.json() if _is_json(response) else None,
    )


def _is_json(response: httpx.Response) -> bool:
    return str(response.headers.get("Content-Type", "")).startswith("application/json")


def _seconds(text: str | None) -> float | None:
    """Return the seconds of a `Retry-After`; None for a date, which Easel doesn't send."""
    return float(text) if text and text.isascii() and text.isdigit() else None
