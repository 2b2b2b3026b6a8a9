"""The ASGI application: Django behind its intake of requests and the headers for pages of other origins."""

import asyncio
import logging
import os
from io import BytesIO
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "easel.settings")

import structlog
from django.core.cache import close_caches
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.signals import request_finished, request_started
from django.db import InterfaceError, OperationalError, close_old_connections, reset_queries
from django.urls import set_script_prefix

from core.errors import DomainError
from easel.api.access import BrokenOff, GuardedAnswers
from easel.api.azure import AzurePaths
from easel.api.cors import Cors
from easel.api.errors import MethodNotAllowed, bad_request, refusal_json
from easel.api.intake import Refused, body_taken, refused
from easel.api.middleware import METHODS, WithoutTrailingSlash, method_label, methods_of, request_id_of
from easel.observability import metrics

log = structlog.get_logger()


class Handler(ASGIHandler):
    """Django's handler without its thread per request, and with one task less.

    Django needs the thread to send its signals to synchronous receivers, of which this application has none.
    """

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, and cancel its work when the client goes away."""
        if scope["type"] == "websocket":  # there are none here, and Django would log an error
            await send({"type": "websocket.close"})
            return
        set_script_prefix(get_script_prefix(scope))
        if scope["method"] not in METHODS:
            refusal = refusal_json(MethodNotAllowed(f"no path has the method {scope['method'][:40]}"))
            refusal["Allow"] = methods_of(scope["path"])
            await self._refuse(Refused(refusal), scope, send)
            return
        try:
            body = await body_taken(scope, receive, lambda: self.create_request(scope, BytesIO())[0])
        except RequestAborted:
            return
        except (Refused, DomainError, OperationalError, InterfaceError) as error:
            await self._refuse(error, scope, send)
            return
        with body:
            await self._answer(scope, body, receive, send)

    async def _refuse(self, error: Exception, scope: Any, send: Any) -> None:
        """Answer a request whose body is not read to its end."""
        answer = refused(error)
        answer["X-Request-Id"] = request_id = _request_id(scope)
        method = method_label(scope["method"])
        metrics.REQUESTS.labels(method, "unmatched", str(answer.status_code)).inc()
        log.info("request", request_id=request_id, method=method, route="unmatched", status=answer.status_code)
        await self.send_response(answer, send)

    async def _answer(self, scope: Any, body: Any, receive: Any, send: Any) -> None:
        request, response = self.create_request(scope, body)
        task = asyncio.current_task()
        assert task is not None
        disconnected = asyncio.create_task(receive())  # the body is read: the next message is the disconnect

        def cancel(_: Any) -> None:
            if request is not None:
                request.is_disconnected = True  # type: ignore[attr-defined]
            task.cancel()

        disconnected.add_done_callback(cancel)
        try:
            if request is not None:
                response = await self.run_get_response(request)
            else:  # Django can't make a request of this scope: its query string is no UTF-8, for example
                response = bad_request(None, None)
                response["X-Request-Id"] = _request_id(scope)
            await self.send_response(response, send)
        except BrokenOff as reason:
            # The server closes a connection whose answer is unfinished, and its client sees that.
            log.info("answer_broken_off", reason=str(reason))
        except asyncio.CancelledError:
            if not disconnected.done():
                raise
            task.uncancel()
        finally:
            disconnected.remove_done_callback(cancel)
            disconnected.cancel()
            if response is not None:
                response.close()


def _request_id(scope: Any) -> str:
    return request_id_of(dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1"))


application = AzurePaths(WithoutTrailingSlash(Cors(GuardedAnswers(Handler()))))

# An error in the server's eyes, and here the purpose: only answers that are broken off end so.
_UNFINISHED = "ASGI callable returned without completing response."
logging.getLogger("uvicorn.error").addFilter(lambda record: record.msg != _UNFINISHED)

# Django would start a thread per request to call these synchronous receivers. `in_thread` returns connections instead.
request_started.disconnect(reset_queries)
request_started.disconnect(close_old_connections)
request_finished.disconnect(close_old_connections)
request_finished.disconnect(close_caches)
