"""The ASGI application: Django behind a limit on bodies."""

import os
from typing import Any, cast

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "easel.settings")

from django.core.asgi import get_asgi_application
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, reset_queries

from easel.api.middleware import BodyLimit

application = BodyLimit(cast(Any, get_asgi_application()))

# These receivers are synchronous, so that Django would keep a thread per request to call them; `in_thread` returns
# connections instead.
request_started.disconnect(reset_queries)
request_started.disconnect(close_old_connections)
request_finished.disconnect(close_old_connections)
