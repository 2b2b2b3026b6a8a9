"""The ASGI application: Django behind a limit on bodies."""

import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "easel.settings")

from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, reset_queries

from easel.api.middleware import BodyLimit


class Handler(ASGIHandler):
    """Without the thread that Django starts for each request: there is only the closing of answers left for it."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.handle(scope, receive, send)


application = BodyLimit(Handler())

# These receivers are synchronous, so that Django would keep a thread per request to call them; `in_thread` returns
# connections instead.
request_started.disconnect(reset_queries)
request_started.disconnect(close_old_connections)
request_finished.disconnect(close_old_connections)
