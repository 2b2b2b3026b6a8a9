"""Errors of keys and accounts."""

from core.errors import DomainError


class InvalidApiKey(DomainError, code="invalid_api_key", http_status=401):
    """The API key is missing, wrong or revoked: send `Authorization: Bearer easel_sk_…` with a live key."""


class TenantSuspended(DomainError, code="account_suspended", type="permission_error", http_status=403):
    """This account is suspended: contact the platform's operator."""


class ScopeMissing(DomainError, code="insufficient_scope", type="permission_error", http_status=403):
    """The API key lacks the scope for this call."""
