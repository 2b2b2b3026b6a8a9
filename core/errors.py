"""Errors for callers: each has a type, a stable code, an HTTP status, and says if a retry can help.

The API turns them into HTTP in one place.
"""

from typing import Any


class DomainError(Exception):
    """A refusal with a reason. `param` names the invalid field of the request, if there is one."""

    code = "invalid_request"
    type = "invalid_request_error"
    http_status = 400
    retryable = False
    retry_after_seconds: int | None = None

    def __init_subclass__(cls, **declared: Any) -> None:
        """Set the class's attributes, as in `class Busy(DomainError, code="busy", http_status=429)`."""
        for name, value in declared.items():
            setattr(cls, name, value)

    def __init__(self, message: str = "", *, param: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])
        self.param = param


class NotFound(DomainError, code="not_found", http_status=404):
    """No such resource."""


class IdempotencyKeyReused(DomainError, code="idempotency_key_reused", http_status=422):
    """This Idempotency-Key was used with another body: use a new key for a new request."""


class IdempotencyKeyInvalid(DomainError, code="idempotency_key_invalid"):
    """An Idempotency-Key must have 1 to 255 printable ASCII characters."""


class OutcomeUnknown(DomainError, code="outcome_unknown", type="server_error", http_status=503):
    """The database connection was lost during the commit, so it is unknown whether the request took effect."""

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
