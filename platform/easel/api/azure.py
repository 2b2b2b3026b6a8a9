"""Azure's paths, each another name of a path under /v1, for `AzureOpenAI` of OpenAI's libraries.

| Azure's path | is taken for |
| --- | --- |
| `/openai/v1/…` and `/openai/…` | `/v1/…` |
| `/openai/deployments/{name}/images/…` | `/v1/images/…`, with the model or alias `{name}` |

They are aliases in one place, and not routes of their own: a call's limits, metrics and description are those of its
path under /v1. A deployment decides the model, as at Azure, whatever `model` the body says.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any

from django.http import HttpRequest

Scope = dict[str, Any]
_DEPLOYED = re.compile(r"/openai/deployments/(.+)/(images/(?:generations|edits|variations))/?")
_PREFIX = re.compile(r"/openai(?:/v1)?(?=/|$)")
_DEPLOYMENT, _ASKED = "easel.deployment", "easel.path_asked"  # in the scope of a request


class AzurePaths:
    """ASGI application that hands a request for one of Azure's paths to another, under its path of ours."""

    def __init__(self, app: Callable[[Scope, Any, Any], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and _PREFIX.match(scope["path"]):
            path = scope["path"]
            if deployed := _DEPLOYED.fullmatch(path):
                scope = {**scope, "path": f"/v1/{deployed[2]}", _DEPLOYMENT: deployed[1], _ASKED: path}
            else:
                scope = {**scope, "path": _PREFIX.sub("/v1", path, count=1), _ASKED: path}
        await self._app(scope, receive, send)


def path_asked(request: HttpRequest) -> str:
    """Return the path as the client asked for it."""
    asked: str = _scope(request).get(_ASKED, request.path)
    return asked


def with_deployment(request: HttpRequest, body: Any) -> Any:
    """Return a body with the request's deployment as its model; any other body as it is."""
    deployment = _scope(request).get(_DEPLOYMENT)
    return {**body, "model": deployment} if deployment is not None and isinstance(body, dict) else body


def _scope(request: HttpRequest) -> Scope:
    return getattr(request, "scope", {})
