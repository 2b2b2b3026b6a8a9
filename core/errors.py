"""Errors that a caller is told of: a type, a stable code, an HTTP status, and whether trying again can help.

`easel.api.errors` is the one place that turns them into HTTP.
"""


class DomainError(Exception):
    """A refusal with a reason. `param` names the request's field at fault, when there is one."""

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
    """This Idempotency-Key was used with another body: take a new key for a new request."""

    code, http_status = "idempotency_key_reused", 422


class IdempotencyKeyInvalid(DomainError):
    """An Idempotency-Key is 1 to 255 printable ASCII characters."""

    code = "idempotency_key_invalid"


class OutcomeUnknown(DomainError):
    """The database went away just as this was being written down, so that nobody knows whether it was."""

    code, type, http_status = "outcome_unknown", "server_error", 503

    def __init__(self, *, repeatable: bool) -> None:
        advice = (
            "send it again with the same Idempotency-Key"
            if repeatable
            else "look for it in GET /v1/jobs before sending it again, or send an Idempotency-Key next time"
        )
        super().__init__(f"the database went away just as this was being written down: {advice}")
        self.retryable = repeatable
        self.retry_after_seconds = 2 if repeatable else None
