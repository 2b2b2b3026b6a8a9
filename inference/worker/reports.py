"""Reports to the control plane: beats at best effort, ends of attempts until Redis has accepted them."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable

import redis
import structlog

from inference.contract import AttemptFinished, Report, WorkerBeat, cancel_key, report_to_json, reports_key

_BEAT_SECONDS = 1.0
_REPORTS_MAX = 10_000  # as the consumer's; each beat of an hour of three workers
_DELAY_SECONDS_FIRST, _DELAY_SECONDS_MAX = 0.1, 5.0

log = structlog.get_logger()


class Reporter:
    """Sends beats from one thread and ends of attempts from another, so that an end that is retried delays no beat."""

    def __init__(
        self, client: "redis.Redis", namespace: str, *, beat: Callable[[], WorkerBeat], cancel: Callable[[str], None]
    ) -> None:
        """`beat` makes the next beat; `cancel` is called with the token of each attempt that Redis says to cancel."""
        self._client = client
        self._namespace = namespace
        self._make_beat = beat
        self._cancel = cancel
        self._ends: queue.Queue[AttemptFinished] = queue.Queue()
        self._beat_due = threading.Event()
        self._stopping = threading.Event()
        self._redis_is_unavailable = False  # at the last beat

    def start(self) -> None:
        for loop in (self._beat_loop, self._end_loop):
            threading.Thread(target=loop, name=f"reports{loop.__name__}", daemon=True).start()

    def request_beat(self) -> None:
        """Have the next beat sent at once."""
        self._beat_due.set()

    def send_beat(self) -> None:
        """Send a beat now, on the calling thread, if Redis is available.

        Sent before an attempt's work, it lets the control plane suspect that attempt if the process then dies.
        """
        with contextlib.suppress(redis.RedisError):
            self._send(self._make_beat())

    def queue_end(self, end: AttemptFinished) -> None:
        """Queue the end of an attempt, which is sent until Redis has accepted it."""
        self._ends.put(end)

    def stop(self, *, timeout_seconds: float) -> int:
        """Wait for queued ends to be sent, at most `timeout_seconds`; return the number of unsent ends."""
        deadline = time.monotonic() + timeout_seconds
        while self._ends.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.02)
        self._stopping.set()
        self._beat_due.set()
        return self._ends.unfinished_tasks

    def _beat_loop(self) -> None:
        while not self._stopping.is_set():
            try:
                self._beat()
            except redis.RedisError as error:
                self._log_change(is_unavailable=True, reason=type(error).__name__)
            except Exception:
                log.exception("beat_failed")
            else:
                self._log_change(is_unavailable=False)
            self._beat_due.wait(_BEAT_SECONDS)
            self._beat_due.clear()

    def _beat(self) -> None:
        beat = self._make_beat()
        self._send(beat)
        tokens = [attempt.attempt_token for attempt in beat.attempts]
        pipeline = self._client.pipeline(transaction=False)
        for token in tokens:
            pipeline.exists(cancel_key(self._namespace, token))
        for token, canceled in zip(tokens, pipeline.execute(), strict=True):
            if canceled:
                self._cancel(token)

    def _end_loop(self) -> None:
        while True:
            end = self._ends.get()
            delay = _DELAY_SECONDS_FIRST
            while True:
                try:
                    self._send(end)
                    break
                except redis.RedisError as error:
                    log.warning("report_repeated", reason=type(error).__name__, delay_seconds=delay)
                    time.sleep(delay)
                    delay = min(2 * delay, _DELAY_SECONDS_MAX)
            self._ends.task_done()

    def _send(self, report: Report) -> None:
        self._client.xadd(
            reports_key(self._namespace), {"report": report_to_json(report)}, maxlen=_REPORTS_MAX, approximate=True
        )

    def _log_change(self, *, is_unavailable: bool, reason: str = "") -> None:
        if is_unavailable != self._redis_is_unavailable:
            self._redis_is_unavailable = is_unavailable
            log.warning("redis_unavailable", reason=reason) if is_unavailable else log.info("redis_back")
