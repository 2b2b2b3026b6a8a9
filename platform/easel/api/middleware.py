"""Gives every request an id, a log line and metrics."""

import random
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import Resolver404, ResolverMatch, resolve
from django.utils.decorators import async_only_middleware

from core.tenant_scope import scope_begin
from easel.api.resource import Resource
from easel.observability import metrics

log = structlog.get_logger()
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_LOOPBACK = {"localhost", "127.0.0.1", "[::1]"}
_host_noticed = False
HTTPS_SECONDS = 365 * 86_400  # for which a browser that came by HTTPS won't come by HTTP

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@async_only_middleware
def RequestContext(  # noqa: N802 - named in settings like a class, as middleware is
    get_response: Callable[[HttpRequest], Awaitable[HttpResponseBase]],
) -> Callable[[HttpRequest], Awaitable[HttpResponseBase]]:
    """Bind `request_id` to the logs, answer with it, and record the request's status and duration."""

    async def middleware(request: HttpRequest) -> HttpResponseBase:
        request_id = request_id_of(request.META.get("HTTP_X_REQUEST_ID", ""))
        request.request_id = request_id  # type: ignore[attr-defined]
        scope_begin()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        _notice_host(request)
        began = time.perf_counter()
        response = await get_response(request)
        if request.method == "HEAD":
            response = _without_stream(response)
        seconds = time.perf_counter() - began
        response["X-Request-Id"] = request_id
        response["X-Content-Type-Options"] = "nosniff"
        if settings.EASEL.public_url.startswith("https://") or request.scope.get("scheme") == "https":  # type: ignore[attr-defined]
            response["Strict-Transport-Security"] = f"max-age={HTTPS_SECONDS}"
        for name, value in getattr(request, "rate_limit_headers", {}).items():
            response[name] = value
        # The route and not the path: a metric's labels must not grow with what clients send.
        route = request.resolver_match.route if request.resolver_match else "unmatched"
        method = method_label(request.method)
        metrics.REQUESTS.labels(method, route, str(response.status_code)).inc()
        metrics.REQUEST_SECONDS.labels(method, route).observe(seconds)
        if not route.startswith(("healthz", "metrics")):
            log.info(
                "request",
                **getattr(request, "log_fields", {}),
                method=method,
                route=route,
                status=response.status_code,
                duration_seconds=round(seconds, 4),
            )
        return response

    return middleware


def _without_stream(response: HttpResponseBase) -> HttpResponseBase:
    """Return the answer to HEAD: the server leaves out a body, but would read a stream to its end for nothing."""
    if not response.streaming:
        return response
    response.close()
    return HttpResponse(status=response.status_code, headers=dict(response.items()))


@async_only_middleware
def Options(  # noqa: N802 - named in settings like a class, as middleware is
    get_response: Callable[[HttpRequest], Awaitable[HttpResponseBase]],
) -> Callable[[HttpRequest], Awaitable[HttpResponseBase]]:
    """Answer OPTIONS with the methods of the path, to anybody: a browser asks before it sends the key."""

    async def middleware(request: HttpRequest) -> HttpResponseBase:
        if request.method != "OPTIONS" or request.path.startswith(settings.PORTAL_PATH):
            return await get_response(request)
        try:
            request.resolver_match = resolve(request.path)
        except Resolver404:
            return await get_response(request)
        allow = _allowed(request.resolver_match)
        answer = HttpResponse(status=204, headers={"Allow": allow})
        del answer["Content-Type"]
        return answer

    return middleware


def methods_of(path: str) -> str:
    """Return the methods of a path, as the header `Allow` lists them; all that any path has for one that is none."""
    try:
        return _allowed(resolve(path))
    except Resolver404:
        return ", ".join(sorted(METHODS))


def _allowed(found: ResolverMatch) -> str:
    resource: Any = getattr(found.func, "cls", None)
    if resource is not None and issubclass(resource, Resource):
        handled: Resource = resource()
        return handled.allow
    allow: str = getattr(found.func, "allow", "GET, HEAD, OPTIONS")  # of a view that is no resource
    return allow


class WithoutTrailingSlash:
    """ASGI application that takes `/v1/models/` for `/v1/models`: a redirect would lose the body of a POST."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/") and scope["path"].endswith("/"):
            scope = {**scope, "path": scope["path"].removesuffix("/")}
        await self._app(scope, receive, send)


def _notice_host(request: HttpRequest) -> None:
    """Log, once, that images can't be fetched: a client came by another host, and `EASEL_PUBLIC_URL` is not set.

    URLs are never made from what a request says of its host, which anybody can write, but a wrong one should be found.
    """
    global _host_noticed
    if _host_noticed or settings.EASEL.public_url != settings.EASEL.internal_url:
        return
    host = request.META.get("HTTP_X_FORWARDED_HOST") or request.META.get("HTTP_HOST", "")
    name = host.rpartition(":")[0] or host
    if host and host != urlsplit(settings.EASEL.public_url).netloc and name not in _LOOPBACK:
        _host_noticed = True
        log.warning("public_url_not_set", host=host[:200], urls_begin_with=settings.EASEL.public_url)


def request_id_of(given: str) -> str:
    """Return the client's request id, or a random one: it may be guessable, which saves the system call of `uuid4`."""
    return given if _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"


def method_label(given: str | None) -> str:
    """Return a method as a metric names it: its labels must not grow with what clients send."""
    return given if given in METHODS else "other"
