"""Errors of keys and accounts."""

from core.errors import DomainError


class InvalidApiKey(DomainError, code="invalid_api_key", http_status=401):
    """The API key is missing, wrong or revoked: send `Authorization: Bearer easel_sk_…` with a live key.
    Keys come from the platform's operator, who makes them in the portal (/admin/) or with `easel key create`.

    Send a live key in the header. If you have none, ask the platform's operator for one.
    """


class KeyExpired(DomainError, code="key_expired", http_status=401):
    """The API key has expired: send a live key.

    Ask the platform's operator for another key, or for another time of expiry.
    """


class AddressNotAllowed(DomainError, code="address_not_allowed", type="permission_error", http_status=403):
    """The API key may not be used from this address.

    Send the request from a network on the key's list, which `GET /v1/quota` shows there, or have the list changed.
    """


class KeyLimitsInvalid(DomainError, code="key_limits_invalid"):
    """A key must expire in the future, have a scope, and be bound to 50 networks of IPv4 or IPv6 at most.

    Correct what the message names. A network is written as 10.1.0.0/16, 2001:db8::/32 or an address.
    """


class TenantSuspended(
    DomainError, code="account_suspended", type="permission_error", http_status=403, passes_later=True
):
    """This account is suspended: contact the platform's operator.

    Ask the platform's operator why. Requests are served again once the account is reactivated.
    """


class ScopeMissing(DomainError, code="insufficient_scope", type="permission_error", http_status=403):
    """The API key lacks the scope for this call.

    Use a key that has the scope that the message names, or have one made.
    """
