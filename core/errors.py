"""Errors for callers: each has a type, a stable code, an HTTP status, and says if a retry can help.

The API turns them into HTTP in one place. The classes are the registry of the codes: `GET /v1/errors`, the OpenAPI
document and docs/errors.md are made from them.
"""

import inspect
from typing import Any


class DomainError(Exception):
    """A refusal with a reason. `param` names the invalid field of the request, if there is one.

    `location` is the URL at which to look for what isn't done yet.
    `retryable` says that the same request can succeed soon, by itself: a client may repeat it. `passes_later` says that
    it can succeed once somebody did something, such as adding credit, or once a month is over: a client should not
    repeat it, but a line of a batch waits.

    The first paragraph of a subclass's docstring says what happened, and is the message where none is given. The rest
    says what the caller can do (`remedy_of`).
    """

    code = "invalid_request"
    type = "invalid_request_error"
    http_status = 400
    retryable = False
    passes_later = False
    retry_after_seconds: int | None = None
    location: str | None = None

    def __init_subclass__(cls, **declared: Any) -> None:
        """Set the class's attributes, as in `class Busy(DomainError, code="busy", http_status=429)`."""
        for name, value in declared.items():
            setattr(cls, name, value)

    def __init__(self, message: str = "", *, param: str | None = None) -> None:
        super().__init__(message or text_of(type(self)))
        self.param = param


def text_of(error: type[DomainError]) -> str:
    """Return what happened, in one sentence."""
    return " ".join(inspect.cleandoc(error.__doc__ or "").partition("\n\n")[0].split())


def remedy_of(error: type[DomainError]) -> str:
    """Return what the caller can do, as one paragraph."""
    return " ".join(inspect.cleandoc(error.__doc__ or "").partition("\n\n")[2].split())


def declared_errors(of: type[DomainError] = DomainError) -> list[type[DomainError]]:
    """Return the imported subclasses that declare a code, in the order of their codes."""
    found = {of} if "code" in vars(of) and of is not DomainError else set()
    return sorted(found.union(*map(declared_errors, of.__subclasses__())), key=lambda error: error.code)


class NotFound(DomainError, code="not_found", http_status=404):
    """No such resource.

    Check the path and the id, and that the key is of the account that owns the resource.
    """


class IdempotencyKeyReused(DomainError, code="idempotency_key_reused", http_status=422):
    """This Idempotency-Key was used with another body: use a new key for a new request.

    Send a new request with a new key. Send the same body to repeat the first request.
    """


class IdempotencyKeyInvalid(DomainError, code="idempotency_key_invalid"):
    """An Idempotency-Key must have 1 to 255 printable ASCII characters.

    Send a key of 1 to 255 printable ASCII characters, for example a UUID.
    """


class OutcomeUnknown(DomainError, code="outcome_unknown", type="server_error", http_status=503):
    """The database connection was lost during the commit, so it is unknown whether the request took effect.

    Repeat the request with the same Idempotency-Key. If it had none, read `GET /v1/jobs` before you repeat it.
    """

    def __init__(self, *, repeatable: bool) -> None:
        advice = (
            "send the request again with the same Idempotency-Key"
            if repeatable
            else "look for its result before sending it again, and send an Idempotency-Key next time"
        )
        super().__init__(
            f"the database connection was lost during the commit, so the request may have taken effect: {advice}"
        )
        self.retryable = repeatable
        self.retry_after_seconds = 2 if repeatable else None
