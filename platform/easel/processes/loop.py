"""The loop that every daemon runs: it calls a turn, waits for work, and outlasts servers that are unavailable."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections, connections
from kombu.exceptions import OperationalError as BrokerError
from psycopg import sql
from redis.exceptions import RedisError

from core.notifications import Flooded, NoticeMeter

log = structlog.get_logger()
RETRY_SECONDS = 1.0
# After so many wake-ups in a row for which there was no work, each further one comes after a rest.
IDLE_WAKEUPS_MAX, REST_SECONDS = 5, 0.02
READS_MAX = 200  # at one wake-up, so that a loop that is sent notifications without end has its turns
# What a turn raises while PostgreSQL or Redis is unavailable.
UNAVAILABLE = (psycopg.OperationalError, OperationalError, InterfaceError, RedisError, BrokerError)


class Pulse(threading.Event):
    """The signal to stop. Each time a loop reads it, `file` is touched.

    A liveness probe looks at the age of the file: a loop that hangs no longer reads its signal.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def is_set(self) -> bool:
        self._file.touch()
        return super().is_set()


def run_turns(
    turn: Callable[[], Any], *, process: str, stop: threading.Event, pause_seconds: float, channels: Sequence[str] = ()
) -> None:
    """Call `turn` until `stop` is set.

    A turn returns a true value if more work may be ready, and then the next turn follows at once. Otherwise the loop
    waits for a notification in one of the PostgreSQL `channels`, at most `pause_seconds`: a notification can be lost.
    Notifications for which there is no work, as anybody can send them, wake it 50 times a second at most, and a flood
    of them does not wake it at all.

    A turn that raises is tried again after RETRY_SECONDS, with new connections. A turn must therefore be repeatable at
    any point.
    """
    idle_wakeups = 0
    try:
        while not stop.is_set():
            try:
                with _notifications(channels, stop) as wait:
                    while not stop.is_set():
                        if turn():
                            idle_wakeups = 0
                            continue
                        if idle_wakeups > IDLE_WAKEUPS_MAX:
                            stop.wait(REST_SECONDS)
                        idle_wakeups = idle_wakeups + 1 if wait(pause_seconds) else 0
            except Flooded:
                log.warning("notifications_flooded", process=process)
                stop.wait(min(pause_seconds, RETRY_SECONDS))
            except UNAVAILABLE as error:
                log.warning("server_unavailable", process=process, error=repr(error))
                _pause_after_failure(stop)
            except Exception:
                log.exception("turn_failed", process=process)
                _pause_after_failure(stop)
    finally:
        connections.close_all()


@contextmanager
def _notifications(channels: Sequence[str], stop: threading.Event) -> Iterator[Callable[[float], object]]:
    """Yield a function that waits for a notification, or for a time; without channels, for `stop` or a time.

    It returns true if it was woken. It takes what else has come, so that this wakes it no more. It raises `Flooded`.
    """
    if not channels:
        yield stop.wait
        return
    with psycopg.connect(settings.EASEL.database_url, autocommit=True) as listener:
        for channel in channels:
            listener.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        meter = NoticeMeter()

        def heard(seconds: float) -> int:
            notices = [notice.payload for notice in listener.notifies(timeout=seconds, stop_after=1)]
            for payload in notices:
                meter.count(payload)
            return len(notices)

        def wait(seconds: float) -> bool:
            is_woken = heard(seconds) > 0
            for _ in range(READS_MAX if is_woken else 0):
                if not heard(0):
                    break
            return is_woken

        yield wait


def _pause_after_failure(stop: threading.Event) -> None:
    close_old_connections()
    stop.wait(RETRY_SECONDS)
