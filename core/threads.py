"""Runs the synchronous part of a request (authentication, parsing, database) on a small pool of threads.

Left to itself, Django keeps a thread for each request under ASGI until the request ends; a client that waits for
its image would hold one. Here a request borrows a thread and a pooled connection only while it works.
"""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from typing import Any, TypeVar

from asgiref.sync import markcoroutinefunction
from django.db import connections
from django.http import HttpRequest, HttpResponseBase
from django.template.response import SimpleTemplateResponse
from rest_framework.views import APIView

T = TypeVar("T")
THREADS = 16  # as many as the database pool has connections
_executor = ThreadPoolExecutor(THREADS, thread_name_prefix="request")
# For what is over in a moment: as many as keep the interpreter at work while PostgreSQL commits. With 16, which take it
# from one another, a job took 2.8 CPU ms, and 1.4 of PostgreSQL's; with 4, 2.3 and 1.1.
SHORT = ThreadPoolExecutor(4, thread_name_prefix="short")


async def in_thread(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Calls a blocking function with this context's variables; its database connection goes back to the pool."""
    return await in_thread_of(_executor, function, *args, **kwargs)


async def in_thread_of(executor: ThreadPoolExecutor, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """`in_thread` on other threads than those of the API."""
    call = partial(contextvars.copy_context().run, _then_return_connections, function, args, kwargs)
    return await asyncio.get_running_loop().run_in_executor(executor, call)


def threaded(
    view: Callable[..., HttpResponseBase], executor: ThreadPoolExecutor = _executor
) -> Callable[..., Coroutine[Any, Any, HttpResponseBase]]:
    """A synchronous view as an asynchronous one."""

    @wraps(view)
    async def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return await in_thread_of(executor, view, request, *args, **kwargs)

    return wrapper


def as_view_of(function: Any, view: type[APIView]) -> None:
    """Marks a function as the way to a view, where Django and the OpenAPI generator look."""
    function.cls, function.initkwargs, function.csrf_exempt = view, {}, True
    markcoroutinefunction(function)


def _then_return_connections(function: Callable[..., T], args: Any, kwargs: Any) -> T:
    try:
        answer = function(*args, **kwargs)
        if isinstance(answer, SimpleTemplateResponse):
            _render(answer)
        return answer
    finally:
        connections.close_all()


def _render(answer: SimpleTemplateResponse) -> None:
    """Here, as Django would start a thread to do it; one that it can await it awaits."""
    answer.render()

    async def rendered() -> SimpleTemplateResponse:
        return answer

    answer.render = rendered  # type: ignore[method-assign, assignment]
