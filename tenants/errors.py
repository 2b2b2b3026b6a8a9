"""Errors of keys and accounts."""

from core.errors import DomainError


class InvalidApiKey(DomainError):
    """The API key is missing, wrong or revoked: send `Authorization: Bearer easel_sk_…` with a live key."""

    code, http_status = "invalid_api_key", 401


class TenantSuspended(DomainError):
    """This account is suspended: contact the platform's operator."""

    code, type, http_status = "account_suspended", "permission_error", 403


class ScopeMissing(DomainError):
    """The API key lacks the scope for this call."""

    code, type, http_status = "insufficient_scope", "permission_error", 403
