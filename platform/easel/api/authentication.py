"""`Authorization: Bearer easel_sk_…` and the scope that each view asks for."""

from typing import Any

import structlog
from django.conf import settings
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from core.revision import revision_begin
from easel.api.errors import Unavailable
from easel.observability.database_watch import database_is_away
from tenants.errors import InvalidApiKey, ScopeMissing
from tenants.keys import key_authenticate
from tenants.models import ApiKey, Tenant


class ApiKeyAuthentication(BaseAuthentication):
    """Puts the tenant in `request.user` and the key in `request.auth`. Raises `InvalidApiKey`, `TenantSuspended`."""

    def authenticate(self, request: Request) -> tuple[Tenant, ApiKey]:
        scheme, _, text = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "bearer":
            raise InvalidApiKey
        if database_is_away():  # before a pooled connection is waited for
            raise Unavailable
        revision_begin()
        key = key_authenticate(text.strip(), pepper=settings.EASEL.secret_key)
        structlog.contextvars.bind_contextvars(tenant=key.tenant.slug, api_key=key.key_id)
        return key.tenant, key


def caller(request: Request) -> ApiKey:
    """The key that a request came with; its tenant is `caller(request).tenant`."""
    key: Any = request.auth
    assert isinstance(key, ApiKey)  # DRF would have answered 401
    return key


class HasScope(BasePermission):
    """The key has the view's `scope`; a view without one is open to any live key."""

    def has_permission(self, request: Request, view: Any) -> bool:
        scope = getattr(view, "scope", None)
        if scope is not None and scope not in caller(request).scopes:
            raise ScopeMissing(f"this API key lacks the scope {scope!r}")
        return True
