"""Runs the synchronous part of a request (authentication, parsing, database) on a small pool of threads.

Django under ASGI keeps a thread for each request until the request ends, so a client that waits for its image holds
one. Here a request uses a thread and a pooled connection only while it works.
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
THREADS = 16  # equal to the connections of the database pool
_executor = ThreadPoolExecutor(THREADS, thread_name_prefix="request")
# Pool for short work (admission). Four threads keep the interpreter busy while PostgreSQL commits: with 16 a job costs
# 2.8 ms of CPU instead of 2.3, and 1.4 ms of PostgreSQL's instead of 1.1 (bench-gateway).
SHORT = ThreadPoolExecutor(4, thread_name_prefix="short")


async def in_thread(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a blocking function with this context's variables; its database connection returns to the pool."""
    return await in_thread_of(_executor, function, *args, **kwargs)


async def in_thread_of(executor: ThreadPoolExecutor, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a blocking function as `in_thread` does, on the threads of another executor."""
    call = partial(contextvars.copy_context().run, _then_return_connections, function, args, kwargs)
    return await asyncio.get_running_loop().run_in_executor(executor, call)


def threaded(
    view: Callable[..., HttpResponseBase], executor: ThreadPoolExecutor = _executor
) -> Callable[..., Coroutine[Any, Any, HttpResponseBase]]:
    """Wrap a synchronous view as an asynchronous one."""

    @wraps(view)
    async def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return await in_thread_of(executor, view, request, *args, **kwargs)

    return wrapper


def as_view_of(function: Any, view: type[APIView]) -> None:
    """Mark a function as the entry of a view, for Django and for the OpenAPI generator."""
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
    """Render in this thread. Django would start another thread for a synchronous `render`, but awaits a coroutine."""
    answer.render()

    async def rendered() -> SimpleTemplateResponse:
        return answer

    answer.render = rendered  # type: ignore[method-assign, assignment]
