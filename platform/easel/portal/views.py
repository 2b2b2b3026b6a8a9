"""Serves the portal's synchronous pages behind the API's asynchronous handler, with the middleware that they need.

Only these pages have sessions, users and messages: as middleware of the whole project they would cost every call of
the API two threads and a query. So each view of the portal is wrapped in them here and rendered on one of a few
threads of its own, which leaves most of the database's pool to the API.
"""

import hashlib
import mimetypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, wraps
from pathlib import Path
from typing import Any

import structlog
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.auth.views import redirect_to_login
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.middleware import SessionMiddleware
from django.contrib.staticfiles import finders
from django.core.exceptions import PermissionDenied, SuspiciousFileOperation, ValidationError
from django.db import DataError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render, resolve_url
from django.urls import URLPattern, URLResolver
from django.utils.cache import get_conditional_response
from django.utils.decorators import decorator_from_middleware

from core.text import text_unstorable_at
from core.threads import in_thread
from core.web_headers import HEADERS

log = structlog.get_logger()
View = Callable[..., HttpResponseBase]
# The context that every page of a site has.
ContextOf = Callable[[HttpRequest], dict[str, Any]]
THREADS = 4
METHODS = ("GET", "HEAD", "POST")
STATIC_SECONDS = 86_400
_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="portal")
_HEADERS = {
    **HEADERS,
    # Nothing is fetched from elsewhere; images may come from the bucket. No script is inline and none is evaluated: the
    # widgets of the pages are written in attributes, which the build of their library in `replaced` parses by itself
    # (`unfold/js/alpine/LICENSE` there). Styles of single elements are set by attributes, those of pages by files.
    "Content-Security-Policy": (
        "default-src 'self'; img-src * data:; style-src 'self'; style-src-attr 'unsafe-inline'; script-src 'self'; "
        "object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
}


def serve_all(patterns: list[Any], context_of: ContextOf) -> list[Any]:
    """Wrap every view in the URL patterns of an admin site by `served`."""
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            serve_all(pattern.url_patterns, context_of)
        elif isinstance(pattern, URLPattern):
            pattern.callback = served(pattern.callback, context_of)
    return patterns


def served(view: View, context_of: ContextOf) -> Callable[..., Any]:
    """Make an asynchronous view of a synchronous one of the portal.

    The answer is rendered on the view's own thread, which has the database, and a refusal is answered with a page.
    """

    @decorator_from_middleware(SessionMiddleware)
    @decorator_from_middleware(AuthenticationMiddleware)
    @decorator_from_middleware(MessageMiddleware)
    def complete(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            if request.method in METHODS:
                response = _answered(view, request, *args, **kwargs)
            else:
                message = f"A page has no method {str(request.method)[:40]}: it is opened, or its form is sent."
                response = _refusal(request, context_of, 405, "Not possible", message)
                response["Allow"] = ", ".join(METHODS)
        except _Forged:
            message = "This form is too old, or another site sent it. Open its page again and send it from there."
            response = _refusal(request, context_of, 403, "Not sent", message)
        except Http404:
            response = _refusal(request, context_of, 404, "Not found", "There is no such page or record.")
        except _Unreadable:
            response = _refusal(
                request, context_of, 400, "Not readable", "This address or form has values that are none."
            )
        except PermissionDenied:
            response = _refusal(
                request, context_of, 403, "Not allowed", "Your role does not allow this. Ask an operator to do it."
            )
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @wraps(view)
    async def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        _drop_unstorable_cookies(request)
        return await in_thread(complete, request, *args, threads=_threads, **kwargs)

    def refusal(request: HttpRequest, **path: Any) -> HttpResponseBase | None:
        """Return the answer to a request whose body shall not be read; None for one that is signed in or signs in."""
        _drop_unstorable_cookies(request)
        if request.method not in METHODS:
            return complete(request, **path)
        sign_in = resolve_url(settings.LOGIN_URL)
        session = SessionStore(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
        if request.method == "POST" and request.path != sign_in and SESSION_KEY not in session:
            return redirect_to_login(request.get_full_path(), sign_in)
        return None

    wrapper.refusal = refusal  # type: ignore[attr-defined]
    return wrapper


def _drop_unstorable_cookies(request: HttpRequest) -> None:
    """Take cookies that no session can have for none: a quoted one spells NUL, by which nothing can be looked up."""
    for name in [name for name, value in request.COOKIES.items() if text_unstorable_at(value)]:
        del request.COOKIES[name]


class _Forged(Exception):
    """A form came without the token that its page has, or from another site."""


def form_forged(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Raise what `served` answers with a page. Django calls this (`CSRF_FAILURE_VIEW`)."""
    log.warning("portal_form_refused", reason=reason)
    raise _Forged


class _Unreadable(Exception):
    """The request has values that nothing can be read or stored by."""


def _answered(view: View, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
    """Return a view's rendered answer. Raises `_Unreadable` for values that no field of the page could have sent.

    Filters hand what an address says to the database: NUL, numbers beyond its integers, days that no calendar has.
    """
    fields = [*request.GET.lists(), *(request.POST.lists() if request.method == "POST" else ())]
    texts = [request.path, *(text for name, values in fields for text in (name, *values))]
    if any(text_unstorable_at(text) for text in texts):
        raise _Unreadable
    try:
        response: Any = view(request, *args, **kwargs)
        return response.render() if hasattr(response, "render") else response  # type: ignore[no-any-return]
    except (DataError, ValidationError, OverflowError, ValueError) as error:
        if request.method == "POST" and not isinstance(error, DataError):
            raise
        log.warning("portal_request_unreadable", exc_info=error)
        raise _Unreadable from error


def _refusal(request: HttpRequest, context_of: ContextOf, status: int, title: str, message: str) -> HttpResponse:
    context = {**context_of(request), "title": title, "message": message}
    return render(request, "portal/refusal.html", context, status=status)


async def static_file(request: HttpRequest, path: str) -> HttpResponseBase:
    """Serve style sheets, scripts and fonts from the packages' folders; needs no session and no database."""
    return await in_thread(_static_file, request, path, threads=_threads)


def _static_file(request: HttpRequest, path: str) -> HttpResponseBase:
    try:
        found = finders.find(path)
    except SuspiciousFileOperation:  # it leads out of the folders of static files
        found = None
    if not isinstance(found, str) or not Path(found).is_file():
        raise Http404
    content, etag = _content(found)
    answer = get_conditional_response(request, etag=etag) or HttpResponse(
        content, content_type=mimetypes.guess_type(path)[0] or "application/octet-stream"
    )
    for name, value in {"ETag": etag, "Cache-Control": f"public, max-age={STATIC_SECONDS}", **_HEADERS}.items():
        answer[name] = value
    return answer


@cache
def _content(path: str) -> tuple[bytes, str]:
    """Read a file and computes its ETag. Cached in memory: all files are about 2 MB and change with a release only."""
    content = Path(path).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
