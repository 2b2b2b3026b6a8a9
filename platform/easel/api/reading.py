"""Views of pages that are only read."""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from django.http import HttpRequest, HttpResponseBase

from easel.api.errors import MethodNotAllowed, refusal_json

_METHODS = "GET, HEAD, OPTIONS"  # which `easel.api.middleware.Options` answers
View = Callable[..., Coroutine[Any, Any, HttpResponseBase]]


def read_only(view: View) -> View:
    """Let a view be asked by GET and HEAD alone, without a body that is read."""

    @wraps(view)
    async def wrapper(request: HttpRequest, **path: Any) -> HttpResponseBase:
        return refusal(request) or await view(request, **path)

    def refusal(request: HttpRequest, **_path: Any) -> HttpResponseBase | None:
        if request.method in ("GET", "HEAD"):
            return None
        answer = refusal_json(MethodNotAllowed(f"{request.path} has no method {request.method}: send GET"))
        answer["Allow"] = _METHODS
        return answer

    wrapper.refusal = refusal  # type: ignore[attr-defined]
    return wrapper
