"""When a run may send its next request: all of its threads wait together after a refusal."""

import re
import threading
import time

import httpx


class Interrupted(Exception):
    """The run is over, and this thread's part of it too."""


class Pace:
    """Threads sleep here, so that they wake at once when the run is interrupted."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.open_at = 0.0  # monotonic seconds

    def pause(self, seconds: float) -> None:
        """Let nobody send for so long."""
        with self._lock:
            self.open_at = max(self.open_at, time.monotonic() + seconds)

    def observe(self, response: httpx.Response) -> None:
        """Wait for the next token where an answer says that a limit of requests has none left.

        `RateLimit: "key";r=0;t=30` has no token left, and `RateLimit-Policy: "key";q=60;w=60` gains one a second.
        """
        policies = dict(re.findall(r'"(\w+)";q=(\d+);w=60', response.headers.get("RateLimit-Policy", "")))
        for name, left in re.findall(r'"(\w+)";r=(\d+)', response.headers.get("RateLimit", "")):
            if left == "0" and int(policies.get(name, 0)):
                self.pause(60 / int(policies[name]))

    def wait(self) -> None:
        """Return when sending is allowed. Raises `Interrupted`."""
        while (seconds := self.open_at - time.monotonic()) > 0:
            self.sleep(seconds)
        if self._over.is_set():
            raise Interrupted

    def sleep(self, seconds: float) -> None:
        """Sleep. Raises `Interrupted`."""
        if self._over.wait(seconds):
            raise Interrupted

    def interrupt(self) -> None:
        self._over.set()
