"""Whether PostgreSQL answers: asked by each API process on a connection of its own, a few times a second.

A server that is stopped refuses connections at once; one that hangs, or whose network is gone, says nothing, and a
client library would wait for it without end. Here requests learn of both within `ANSWER_SECONDS_MAX`: new ones are
refused without being tried, and those that wait for an answer (`WatchedConnection`) give up. A statement that only
takes long, on a server that answers, is left alone.
"""

import threading
import time
from collections.abc import Generator
from typing import Any

import psycopg
import structlog
from django.conf import settings
from django.db import connection as django_connection
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool

log = structlog.get_logger()
ANSWER_SECONDS_MAX = 1.0
PAUSE_SECONDS = 0.25  # between two questions
CONNECT_SECONDS_MAX = 2
SENT_MS_MAX = 3000  # that a network which is gone may keep to itself before the kernel gives up on it


class DatabaseWatch:
    """Asks from a thread of its own, for as long as the process lives."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._asked_at: float | None = None  # on the monotonic clock; None while no question is open
        self._lost = False
        threading.Thread(target=self._run, name="database-watch", daemon=True).start()

    @property
    def away(self) -> bool:
        """True from the first sign that PostgreSQL doesn't answer until it has answered again."""
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
                    log.warning("database_away", error=repr(error))
                self._lost = True
                time.sleep(PAUSE_SECONDS)

    def _connect(self) -> psycopg.Connection[Any]:
        limits: dict[str, Any] = {"connect_timeout": CONNECT_SECONDS_MAX, "tcp_user_timeout": SENT_MS_MAX}
        return psycopg.connect(self._url, autocommit=True, **limits)

    def _answered(self) -> None:
        if self.away:
            log.info("database_back")
            pool: ConnectionPool[Any] | None = getattr(django_connection, "pool", None)
            if pool is not None and not pool.closed:
                pool.check()  # connections that the outage broke are replaced before a request gets one
        self._lost, self._asked_at = False, None


_watch: DatabaseWatch | None = None
_beginning = threading.Lock()


def database_is_away() -> bool:
    """From the first call on, this process watches."""
    global _watch
    if _watch is None:
        with _beginning:
            _watch = _watch or DatabaseWatch(settings.EASEL.database_url)
    return _watch.away


class WatchedConnection(psycopg.Connection[Any]):
    """A connection that stops waiting for a server which answers nobody. Its transaction is undone by the server."""

    def _start_query(self) -> Generator[Any, Any, None]:
        """In a pipeline BEGIN goes with what follows it; psycopg would wait for its answer, a round trip more.

        An error in the same pipeline leaves a failed transaction, as it does after a BEGIN that was answered.
        """
        if self._pipeline is None:
            yield from super()._start_query()
        elif not self._autocommit and self.pgconn.transaction_status == TransactionStatus.IDLE:
            yield from self._exec_command(self._get_tx_start_command())

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        return super().wait(self._watched(gen) if _watch is not None else gen, *args, **kwargs)

    def _watched(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        try:
            wants = next(gen)
            while True:
                ready = yield wants  # nothing is ready: psycopg looks up ten times a second
                if not ready and _watch is not None and _watch.away:
                    self.close()
                    raise psycopg.OperationalError("PostgreSQL doesn't answer")
                wants = gen.send(ready)
        except StopIteration as end:
            return end.value
