"""The way of every request under /v1, from the event loop to the handler of its resource and back.

A resource is a class with a method per HTTP method, declared beside what it takes and what it answers. It isn't an
`APIView` of Django REST framework, whose request, response and negotiation objects took a sixth of the CPU of an
admitted job.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import structlog
from asgiref.sync import markcoroutinefunction
from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from rest_framework.renderers import JSONRenderer
from rest_framework.utils.json import strict_constant

from core import clock
from core.revision import optimistic, revision_begin
from core.tenant_scope import platform_scope, scope_enter
from core.text import json_text
from core.threads import REQUESTS, SHORT, in_thread
from easel.api import errors
from easel.api.access import ACCESS, Access, access_of
from easel.api.azure import path_asked
from easel.api.cors import TENANT
from easel.api.declaration import BINARY, OCTETS, Operation
from easel.jobs.moderation import ModerationUnavailable, PromptUnjudged, verdict_fetch
from easel.jobs.outputs import ImageLinks, links_for
from easel.observability.database_watch import database_is_unavailable
from tenants.errors import InvalidApiKey
from tenants.keys import key_authenticate, scope_check
from tenants.models import ApiKey, Scope

log = structlog.get_logger()
# Calls of the classifier; more of them wait.
_judging = ThreadPoolExecutor(32, thread_name_prefix="moderation")
View = Callable[..., Coroutine[Any, Any, HttpResponseBase]]
_decoder = json.JSONDecoder(parse_constant=strict_constant)  # NaN and Infinity are no JSON
_renderer = JSONRenderer()


class Resource:
    """The handlers of one path, `get(request, …)`, `post(request, …)` and so on: each makes one domain call."""

    scope: str | None = None  # a resource without one is open to any live key
    scopes: Mapping[str, str] = {}  # of the HTTP methods that need another scope
    is_public = False  # true where no key is needed

    def dispatch(self, request: HttpRequest, **path: Any) -> HttpResponseBase:
        """Authenticate the caller, check its scope, call the handler, and answer refusals in OpenAI's error body."""
        try:
            answer = self._admit(request)(request, **path)
        except Exception as error:
            answer = self._refusal(error)
            if isinstance(error, PromptUnjudged):
                answer.unjudged = error  # type: ignore[attr-defined]  # for `serve`
        answer["Allow"] = self.allow
        return answer

    def refusal(self, request: HttpRequest) -> HttpResponse | None:
        """Return the answer to a request that its head alone refuses, before its body is read; None if it doesn't."""
        try:
            self._admit(request)
        except Exception as error:
            answer = self._refusal(error)
            answer["Allow"] = self.allow
            return answer
        return None

    def _admit(self, request: HttpRequest) -> Callable[..., HttpResponseBase]:
        """Return the handler of a request whose caller may call it."""
        if not self.is_public:
            self._authorize(request, authenticate(request))
        handler = self.handlers.get(request.method or "")
        if handler is None:
            asked = path_asked(request)
            raise errors.MethodNotAllowed(f"{asked} has no method {request.method}: send {self._methods}")
        self._accepted(request, handler.operation)  # type: ignore[attr-defined]  # by `operation`
        return handler

    @staticmethod
    def _refusal(error: Exception) -> HttpResponse:
        """Return the answer to a refusal; any other error is raised again."""
        refusal = errors.handle(error)
        if refusal is None:
            raise error
        return refusal

    @staticmethod
    def _accepted(request: HttpRequest, operation: Operation) -> None:
        """Raise `NotAcceptable` if no answer of the operation has a media type of the request's `Accept`."""
        accept = request.META.get("HTTP_ACCEPT", "*/*")
        if "*/*" in accept or "application/json" in accept:
            return
        offered = [*operation.media_types, *([OCTETS, BINARY] if operation.files else [])]
        if not any(request.accepts(name) for name in offered):
            raise errors.NotAcceptable(f"the answers of this call are {', '.join(offered)}")

    def _authorize(self, request: HttpRequest, key: ApiKey) -> None:
        access = access_of(request)
        if scopes := self.scopes_of(request.method or ""):
            access.scopes = scopes
            scope_check(key, scopes)

    def scopes_of(self, method: str) -> tuple[str, ...]:
        """Return the scopes of which a key needs one for an HTTP method; none where any key is let in."""
        scope = self.scopes.get(method, self.scope)
        if scope is None:
            return ()
        return (scope, Scope.READ) if method in ("GET", "HEAD") else (scope,)

    @cached_property
    def handlers(self) -> dict[str, Callable[..., HttpResponseBase]]:
        """The handler of each HTTP method, in the order of the `Allow` header."""
        names = [name for name in ("get", "post", "put", "patch", "delete") if hasattr(self, name)]
        found = {name.upper(): getattr(self, name) for name in names}
        if "GET" in found:
            found["HEAD"] = found["GET"]
        return found

    @cached_property
    def _methods(self) -> str:
        return " or ".join(method for method in self.handlers if method != "HEAD")

    @cached_property
    def allow(self) -> str:
        return ", ".join([*self.handlers, "OPTIONS"])  # which `easel.api.middleware.Options` answers


def serve(resource: type[Resource], *, submits: bool = False) -> View:
    """Return the asynchronous view that answers a resource's requests, each on a thread.

    - Thread: one of the API's 16, or of the four for admission where a POST submits a job. Reading takes
      longer than admission, so that a list of jobs would delay jobs.
    - Once or twice: a submission assumes the configuration revision that this process saw last. It runs again where
      that was wrong, unless the first run ended in a failure of ours (`core.revision.optimistic`).
    - Connections: the database connection returns to the pool as soon as the thread has done (`in_thread`).
    - A database that goes away: `dispatch` answers 503. So does this function where the database went away in between,
      while a refusal was validated.
    """
    run: Callable[..., HttpResponseBase] = resource().dispatch
    submit = optimistic(run, is_final=lambda answer: answer.status_code >= 500)

    async def view(request: HttpRequest, **path: Any) -> HttpResponseBase:
        try:
            is_short = submits and request.method == "POST"
            handle, threads = (submit, SHORT) if is_short else (run, REQUESTS)
            answer = await in_thread(handle, request, threads=threads, **path)
            if (unjudged := getattr(answer, "unjudged", None)) is not None:
                # A foreign service is waited for on no thread that others need, and then the request runs again.
                try:
                    await asyncio.get_running_loop().run_in_executor(_judging, verdict_fetch, unjudged)
                except ModerationUnavailable as error:
                    return errors.refusal_json(error)
                answer = await in_thread(handle, request, threads=threads, **path)
            return answer
        except (OperationalError, InterfaceError) as error:
            log.warning("dependency_unavailable", error=repr(error))
            return errors.refusal_json(errors.Unavailable())

    return described_by(resource, view)


def described_by(resource: type[Resource], view: View) -> View:
    """Mark a view as a resource's, where the OpenAPI document looks for it."""
    view.cls, view.csrf_exempt = resource, True  # type: ignore[attr-defined]
    markcoroutinefunction(view)
    return view


def authenticate(request: HttpRequest) -> ApiKey:
    """Put the tenant of the request's API key in `request.user` and the key in `request.auth`.

    Raises `Unavailable`, and what `key_check` raises.
    """
    text = _key_text(request)
    if database_is_unavailable():  # asked before the request waits for a pooled connection
        raise errors.Unavailable
    revision_begin()
    address = request.META.get("REMOTE_ADDR", "")  # behind a trusted proxy the server has put its client's there
    with platform_scope():  # nobody knows yet whose key it is
        key = key_authenticate(text, pepper=settings.EASEL.secret_key, now=clock.now(), address=address)
    scope_enter(key.tenant_id)
    request.user, request.auth = key.tenant, key  # type: ignore[assignment, attr-defined]
    request.scope[TENANT] = key.tenant  # type: ignore[attr-defined]  # of ASGI
    request.scope[ACCESS] = Access(key, address=address)  # type: ignore[attr-defined]
    # For the log lines of this thread, and with the request for its own line, which the event loop writes.
    request.log_fields = {"tenant": key.tenant.slug, "api_key": key.key_id}  # type: ignore[attr-defined]
    structlog.contextvars.bind_contextvars(**request.log_fields)  # type: ignore[attr-defined]
    return key


def _key_text(request: HttpRequest) -> str:
    """Return the text of `Authorization: Bearer easel_sk_…`, or of Azure's `api-key: easel_sk_…`.

    Raises `InvalidApiKey` where there is neither, and where they differ: it would be a guess which tenant is charged.
    """
    scheme, _, text = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    bearer = text.strip() if scheme.lower() == "bearer" else ""
    azure = request.META.get("HTTP_API_KEY", "").strip()
    if bearer and azure and bearer != azure:
        raise InvalidApiKey("the headers Authorization and api-key have different keys: send one of them")
    if not (bearer or azure):
        raise InvalidApiKey
    return bearer or azure


def caller(request: HttpRequest) -> ApiKey:
    """Return the key that a request came with; its tenant is `caller(request).tenant`."""
    key: ApiKey = request.auth  # type: ignore[attr-defined]
    return key


def links_of(request: HttpRequest) -> ImageLinks:
    """Return what signs URLs of images for the caller."""
    return links_for(caller(request), base=settings.EASEL.public_url, now=clock.now())


def body_of(request: HttpRequest) -> Any:
    """Return the JSON of a request's body in UTF-8, whatever charset its Content-Type names; `{}` for an empty one.

    It may begin with a byte order mark, which RFC 8259 lets a parser ignore.

    Raises `InvalidJson`, `UnsupportedMediaType`, `RequestDataTooBig`.
    """
    if not request.META.get("CONTENT_LENGTH", "").strip("0"):
        return {}
    if request.content_type != "application/json":
        given = request.META.get("CONTENT_TYPE", "")
        raise errors.UnsupportedMediaType(f"the body has the media type {given!r}: send application/json")
    try:
        return _decoder.decode(json_text(request.body))
    except ValueError as error:
        raise errors.InvalidJson(f"the body is not JSON: {error}") from error
    except RecursionError as error:  # what Python's parser raises where it gives up
        raise errors.InvalidJson("the JSON is nested too deep") from error


def answer_json(data: Any = None, *, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """Return an answer of JSON, or without a body where `data` is None."""
    content = _renderer.render(data)
    answer = HttpResponse(content, status=status, content_type="application/json", headers=headers)
    if not content:
        del answer["Content-Type"]
    return answer
