"""Lets pages of other origins call the API from a browser (CORS).

The platform allows origins for all tenants (`EASEL_CORS_ORIGINS`), a tenant for its own keys (`easel tenant origins`).
A browser asks first, without the key: it is let through if anybody allows the page's origin, and the answer to the
true request has the header only if its own tenant does, or if the request names none that we know.

It is ASGI and no middleware of Django's, which django-cors-headers is: what is refused before Django (a body over the
limit) must be readable too, and who called is known only to the answer. Credentials are never allowed: a page sends the
key itself, and a cookie of the portal must not act here.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError

from core.threads import in_thread
from easel.observability.database_watch import database_is_unavailable
from tenants.models import Tenant
from tenants.origins import origins_by_tenant

log = structlog.get_logger()
Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PATHS = ("/v1/", "/storage/")
TENANT = "easel.tenant"  # where `easel.api.resource.authenticate` leaves the caller's tenant in the scope
_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"  # of a path that does not exist: the page shall read its 404
_HEADERS = (
    b"Authorization, Content-Type, Idempotency-Key, api-key, X-Request-Id, Last-Event-ID, Range, If-None-Match,"
    b" If-Modified-Since, If-Range, Cache-Control, User-Agent"
)
_ASKED_BYTES_MAX = 2000
_PREFLIGHT_SECONDS = b"7200"  # the longest that Chromium remembers

# Of the last time that the database answered: its failure must be readable by pages too.
_last_known: Mapping[str, frozenset[str]] = {}


class Cors:
    """ASGI application that adds the headers of CORS to the answers of another."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not f"{scope['path']}/".startswith(PATHS):
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"])
        origin: bytes = given.get(b"origin", b"")
        is_preflight = scope["method"] == "OPTIONS" and b"access-control-request-method" in given
        passed = False

        async def with_headers(message: Message) -> None:
            nonlocal passed
            if message["type"] == "http.response.start":
                answered = [(name.lower(), value) for name, value in message["headers"]]
                headers = [*answered, (b"vary", b"Origin")]
                if origin and (allowed := await _allowed(scope, origin.decode("latin-1"))):
                    if is_preflight:
                        passed = True
                        headers = _preflight(headers, given.get(b"access-control-request-headers", b""))
                    else:
                        exposed = b", ".join(dict.fromkeys(name for name, _ in answered))
                        headers.append((b"access-control-expose-headers", exposed))
                    headers.append((b"access-control-allow-origin", allowed.encode("latin-1")))
                message = {**message, "headers": headers, "status": 204 if passed else message["status"]}
            elif passed:
                message = {**message, "body": b""}
            await send(message)

        await self._app(scope, receive, with_headers)


def _preflight(headers: list[tuple[bytes, bytes]], asked: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers that let a request follow: with the methods of its path and the headers that it asks for.

    Every header may be sent. The key is one that the page has, so that a list would protect nothing, and clients send
    headers of their own (x-stainless-…, HTTP-Referer, X-Title).
    """
    others = [(name, value) for name, value in headers if name not in (b"content-type", b"content-length")]
    methods = dict(headers).get(b"allow", _METHODS)
    asked = asked if len(asked) <= _ASKED_BYTES_MAX else b""
    return [
        *others,
        (b"access-control-allow-methods", methods),
        (b"access-control-allow-headers", b", ".join(filter(None, (_HEADERS, asked)))),
        (b"access-control-max-age", _PREFLIGHT_SECONDS),
    ]


async def _allowed(scope: Scope, origin: str) -> str | None:
    """Return the value of `Access-Control-Allow-Origin`; None if the origin is not allowed."""
    if "*" in settings.EASEL.cors_origins:
        return "*"
    if origin in settings.EASEL.cors_origins:
        return origin
    caller: Tenant | None = scope.get(TENANT)
    if caller is not None:
        return origin if origin in caller.origins else None
    known = await _known()
    if scope["path"].startswith("/storage/"):
        owner = scope["path"].split("/")[2]
        return origin if origin in known.get(owner, ()) else None
    return origin if any(origin in origins for origins in known.values()) else None


async def _known() -> Mapping[str, frozenset[str]]:
    global _last_known
    if not database_is_unavailable():
        try:
            _last_known = await in_thread(origins_by_tenant)
        except (OperationalError, InterfaceError) as error:
            log.warning("dependency_unavailable", error=repr(error))
    return _last_known
