"""Runs a set of processes, restarts those that die, merges their output, and stops them all."""

import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from queue import SimpleQueue
from types import FrameType
from typing import BinaryIO

from easel_local.process import Backoff, ProcessSpec, SupervisedProcess

_COLORS = (36, 33, 35, 32, 34, 31)  # ANSI foregrounds, by turns
_POLL_SECONDS = 0.05


class Supervisor:
    """Runs the processes of `specs` until stopped; calls `on_change` after each start of a process."""

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        *,
        grace_seconds: float = 15.0,
        out: BinaryIO | None = None,
        backoff: Backoff | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._console = Console(out or sys.stdout.buffer, [spec.name for spec in specs])
        self._grace_seconds = grace_seconds
        self._new_process = partial(
            SupervisedProcess, reporter=self._console, backoff=backoff or Backoff(), on_start=on_change
        )
        self._processes = [self._new_process(spec) for spec in specs]

    def start(self) -> None:
        """Start every process; returns at once."""
        for process in self._processes:
            process.start()

    def add(self, spec: ProcessSpec) -> None:
        """Start one more process."""
        self._processes.append(self._new_process(spec))
        self._processes[-1].start()

    def stop(self) -> None:
        """Stop every process, and kill those that outlive the grace period. A signal cuts the grace period short."""
        hurry = threading.Event()
        with signals_call(hurry.set):
            for process in self._processes:
                process.request_stop()
            deadline = time.monotonic() + self._grace_seconds
            while self._alive() and time.monotonic() < deadline and not hurry.is_set():
                self._alive()[0].join(_POLL_SECONDS)
            for process in self._alive():
                self._console.event("process killed", process=process.spec.name, forced=hurry.is_set())
                process.kill()
            for process in self._processes:
                process.join(_POLL_SECONDS + self._grace_seconds)

    def pids(self) -> dict[str, int]:
        """Process ids of the running processes, by name."""
        return {process.spec.name: pid for process in self._processes if (pid := process.pid) is not None}

    def deaths(self) -> dict[str, int]:
        """Return the number of unrequested deaths of each process, by name."""
        return {process.spec.name: process.deaths for process in self._processes}

    def _alive(self) -> list[SupervisedProcess]:
        return [process for process in self._processes if not process.join(0)]


class Console:
    """Merges lines of many processes into one output: after coloured names on a terminal, unchanged elsewhere."""

    def __init__(self, out: BinaryIO, names: Sequence[str]) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._prefixes: dict[str, bytes] = {}
        if out.isatty():
            width = max(map(len, [*names, "supervisor"]))
            for turn, name in enumerate(["supervisor", *names]):
                color = _COLORS[turn % len(_COLORS)]
                self._prefixes[name] = f"\x1b[{color}m{name:<{width}}\x1b[0m ".encode()

    def line(self, name: str, line: bytes) -> None:
        """Print one line as a whole."""
        ended = line if line.endswith(b"\n") else line + b"\n"
        with self._lock:
            try:
                self._out.write(self._prefixes.get(name, b"") + ended)
                self._out.flush()
            except (OSError, ValueError):
                return  # the reader of our output has gone; the processes go on

    def event(self, event: str, **fields: object) -> None:
        """Print an event of the supervisor itself: a sentence on a terminal, JSON elsewhere."""
        if self._prefixes:
            text = f"{event}: " + " ".join(f"{name}={value}" for name, value in fields.items())
        else:
            timestamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            about = {"ts": timestamp, "level": "warning", "service": "supervisor", "event": event}
            text = json.dumps({**about, **fields}, default=str)
        self.line("supervisor", text.encode())


@contextmanager
def signals_call(action: Callable[[], None]) -> Iterator[None]:
    """Call `action` on SIGINT, SIGTERM and SIGHUP. Does nothing outside the main thread, which alone gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # A handler may interrupt the main thread while it holds a lock that `action` needs (threading.Event has one).
    # So the handler only calls SimpleQueue.put, which is reentrant, and another thread calls `action`.
    received: SimpleQueue[bool] = SimpleQueue()

    def act() -> None:
        while received.get():
            action()

    def handle(_signum: int, _frame: FrameType | None) -> None:
        received.put(True)

    threading.Thread(target=act, name="signals", daemon=True).start()
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        received.put(False)
