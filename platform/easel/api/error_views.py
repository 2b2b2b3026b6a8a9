"""The registry of the API's error codes: `GET /v1/errors`, and docs/errors.md."""

from django.http import HttpRequest, HttpResponse
from typing_extensions import TypedDict

from core.errors import DomainError, NotFound, declared_errors, remedy_of, text_of
from easel.api import errors
from easel.api.declaration import OPERATIONS
from easel.api.endpoint import endpoint
from easel.api.resource import answer_json
from easel.api.rows import Listed, listed
from easel.api.storage_views import LINK_ERRORS
from easel.batches.errors import LINE_ERRORS
from tenants.errors import AddressNotAllowed, InvalidApiKey, KeyExpired, ScopeMissing, TenantSuspended

# Any call can be refused by these, whatever it is.
COMMON: tuple[type[DomainError], ...] = (
    NotFound,
    InvalidApiKey,
    KeyExpired,
    AddressNotAllowed,
    ScopeMissing,
    TenantSuspended,
    *(kind for kind in declared_errors() if kind.__module__ == errors.__name__),
)


class ErrorCode(TypedDict):
    """An error code: what happened, and what you can do about it."""

    code: str
    status: int
    type: str
    retryable: bool
    passes_later: bool
    text: str
    remedy: str


@endpoint("get", "errors_list", Listed[ErrorCode], is_public=True)
def error_codes(request: HttpRequest) -> HttpResponse:
    """List the codes of all errors, each with its status, if a retry can help, and what to do."""
    return answer_json(listed([error_json(error) for error in api_errors()]))


def api_errors() -> list[type[DomainError]]:
    """Return the errors that a caller of the API can meet, in the order of their codes."""
    of_calls = {error for declared in OPERATIONS.values() for error in declared.errors}
    return sorted({*COMMON, *LINE_ERRORS, *LINK_ERRORS, *of_calls}, key=lambda kind: kind.code)


def error_json(error: type[DomainError]) -> ErrorCode:
    return {
        "code": error.code,
        "status": error.http_status,
        "type": error.type,
        "retryable": error.retryable,
        "passes_later": error.passes_later,
        "text": text_of(error),
        "remedy": remedy_of(error),
    }
