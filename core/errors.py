"""Errors for callers: each has a type, a stable code, an HTTP status, and says if a retry can help.

The API turns them into HTTP in one place.
"""


class DomainError(Exception):
    """A refusal with a reason. `param` names the invalid field of the request, if there is one."""

    code = "invalid_request"
    type = "invalid_request_error"
    http_status = 400
    retryable = False
    retry_after_seconds: int | None = None

    def __init__(self, message: str = "", *, param: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])
        self.param = param


class NotFound(DomainError):
    """No such resource."""

    code, http_status = "not_found", 404


class IdempotencyKeyReused(DomainError):
    """This Idempotency-Key was used with another body: use a new key for a new request."""

    code, http_status = "idempotency_key_reused", 422


class IdempotencyKeyInvalid(DomainError):
    """An Idempotency-Key must have 1 to 255 printable ASCII characters."""

    code = "idempotency_key_invalid"


class OutcomeUnknown(DomainError):
    """The database connection was lost during the commit, so it is unknown whether the request took effect."""

    code, type, http_status = "outcome_unknown", "server_error", 503

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
