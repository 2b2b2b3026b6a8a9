"""Makes the resource of a path that has one method."""

from collections.abc import Callable
from typing import Any

from django.http import HttpResponseBase

from easel.api.declaration import operation
from easel.api.resource import Resource


def endpoint(
    method: str,
    name: str,
    answer: Any = None,
    *,
    scope: str | None = None,
    is_public: bool = False,
    **described: Any,
) -> Callable[[Callable[..., HttpResponseBase]], type[Resource]]:
    """Make the resource of a path with one method from its handler; `described` is what `operation` takes."""

    def make(handler: Callable[..., HttpResponseBase]) -> type[Resource]:
        handlers = {method: staticmethod(operation(name, answer, **described)(handler))}
        return type(
            handler.__name__.title().replace("_", ""), (Resource,), {"scope": scope, "is_public": is_public, **handlers}
        )

    return make
