"""The ASGI application: Django behind a limit on request bodies and the headers for pages of other origins."""

import asyncio
import logging
import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "easel.settings")

import structlog
from django.core.cache import close_caches
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, reset_queries
from django.urls import set_script_prefix

from easel.api.access import BrokenOff, GuardedAnswers
from easel.api.azure import AzurePaths
from easel.api.cors import Cors
from easel.api.errors import bad_request
from easel.api.middleware import BodyLimit, WithoutTrailingSlash, request_id_of

log = structlog.get_logger()


class Handler(ASGIHandler):
    """Django's handler without its thread per request, and with one task less.

    Django needs the thread to send its signals to synchronous receivers, of which this application has none.
    """

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, and cancel its work when the client goes away."""
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        with body:
            set_script_prefix(get_script_prefix(scope))
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
                    given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
                    response["X-Request-Id"] = request_id_of(given)
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


application = AzurePaths(WithoutTrailingSlash(Cors(BodyLimit(GuardedAnswers(Handler())))))

# An error in the server's eyes, and here the purpose: only answers that are broken off end so.
_UNFINISHED = "ASGI callable returned without completing response."
logging.getLogger("uvicorn.error").addFilter(lambda record: record.msg != _UNFINISHED)

# Django would start a thread per request to call these synchronous receivers. `in_thread` returns connections instead.
request_started.disconnect(reset_queries)
request_started.disconnect(close_old_connections)
request_finished.disconnect(close_old_connections)
request_finished.disconnect(close_caches)
