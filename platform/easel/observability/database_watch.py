"""Detects that PostgreSQL is unavailable: each API process probes it on a connection of its own, a few times a second.

A stopped server refuses connections at once. A server that hangs, or that the network no longer reaches, does not
answer, and a client library would wait for it forever. With the watch, requests notice both within
`ANSWER_SECONDS_MAX`: new requests are refused without a try, and queries in flight are given up (`WatchedConnection`).
A query that is merely slow, on a server that answers the probe, is left alone.
"""

import threading
import time
from collections.abc import Generator
from typing import Any

import psycopg
import structlog
from django.conf import settings
from django.db import connection as django_connection
from psycopg_pool import ConnectionPool

from core.tenant_scope import ScopedConnection

log = structlog.get_logger()
ANSWER_SECONDS_MAX = 1.0
PAUSE_SECONDS = 0.25  # between two probes
CONNECT_SECONDS_MAX = 2
SENT_MS_MAX = 3000  # the kernel closes a connection whose sent data was not acknowledged for so long


class DatabaseWatch:
    """Probes PostgreSQL from a thread of its own, until the process ends."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._asked_at: float | None = None  # on the monotonic clock; None while no probe is in flight
        self._lost = False
        threading.Thread(target=self._run, name="database-watch", daemon=True).start()

    @property
    def is_unavailable(self) -> bool:
        """True from the first failed or late probe until PostgreSQL has answered again."""
        asked_at = self._asked_at
        return self._lost or (asked_at is not None and time.monotonic() - asked_at > ANSWER_SECONDS_MAX)

    def _run(self) -> None:
        while True:
            try:
                self._asked_at = time.monotonic()
                with self._connect() as connection:
                    while True:
                        connection.execute("SELECT 1")
                        self._answered()
                        time.sleep(PAUSE_SECONDS)
                        self._asked_at = time.monotonic()
            except psycopg.Error as error:
                if not self._lost:
                    log.warning("database_unavailable", error=repr(error))
                self._lost = True
                time.sleep(PAUSE_SECONDS)

    def _connect(self) -> psycopg.Connection[Any]:
        limits: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS_MAX, "tcp_user_timeout": SENT_MS_MAX}
        return psycopg.connect(self._url, autocommit=True, **limits)

    def _answered(self) -> None:
        if self.is_unavailable:
            log.info("database_back")
            pool: ConnectionPool[Any] | None = getattr(django_connection, "pool", None)
            if pool is not None and not pool.closed:
                pool.check()  # replace connections that the outage broke before a request gets one
        self._lost, self._asked_at = False, None


_watch: DatabaseWatch | None = None
_start_lock = threading.Lock()


def database_is_unavailable() -> bool:
    """Return true if PostgreSQL does not answer. The first call starts the watch of this process."""
    global _watch
    if _watch is None:
        with _start_lock:
            _watch = _watch or DatabaseWatch(settings.EASEL.database_url)
    return _watch.is_unavailable


class WatchedConnection(ScopedConnection):
    """A connection that gives up a query when the watch finds the server unavailable.

    The server then rolls back its transaction.
    """

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        return super().wait(self._watched(gen) if _watch is not None else gen, *args, **kwargs)

    def _watched(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        try:
            wants = next(gen)
            while True:
                ready = yield wants  # psycopg resumes this ten times a second with nothing ready
                if not ready and _watch is not None and _watch.is_unavailable:
                    self.close()
                    raise psycopg.OperationalError("PostgreSQL doesn't answer")
                wants = gen.send(ready)
        except StopIteration as end:
            return end.value
