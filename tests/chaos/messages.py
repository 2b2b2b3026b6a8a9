"""Sits between the control plane and the workers in Redis, as one more of those who take messages there.

It takes tasks from the list and reports from the stream as a worker and a consumer would, and puts them back: at once,
twice, late, in another order, or not at all.
"""

import random
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import redis

from easel.processes.pool_streams import GROUP
from easel.seed import SHARED_NAMESPACE
from inference.contract import QUEUE, reports_key
from tests.chaos.schedule import LEASE_SECONDS

TASKS = f"{SHARED_NAMESPACE}:{QUEUE}"
REPORTS = reports_key(SHARED_NAMESPACE)
_DEEDS = ("pass", "double", "double", "delay", "delay", "lose")


class Meddler:
    """Meddles with one kind of messages from `start` until its time is over; `release` lets go of what it holds."""

    def __init__(self, url: str, chance: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self._redis = redis.Redis.from_url(url, socket_timeout=5)
        self._chance = chance
        self._held: list[tuple[float, str, Any]] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._until = dict.fromkeys((TASKS, REPORTS), 0.0)
        loops = (self._tasks, self._reports, self._late)
        self._threads = [threading.Thread(target=loop, daemon=True) for loop in loops]
        for thread in self._threads:
            thread.start()

    def start(self, what: str, seconds: float) -> None:
        self._until[TASKS if what == "tasks" else REPORTS] = time.monotonic() + seconds

    def release(self) -> None:
        """Meddles no more; what was held back is delivered now."""
        self._until = dict.fromkeys(self._until, 0.0)
        with self._lock:
            self._held = [(0.0, where, message) for _, where, message in self._held]
        while self._held:
            time.sleep(0.02)

    def close(self) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join()

    def _tasks(self) -> None:
        while self._wait_for_turn(TASKS):
            with suppress(redis.RedisError):
                if taken := self._redis.brpop([TASKS], timeout=1):
                    self._meddle(TASKS, [taken[1]])

    def _reports(self) -> None:
        while self._wait_for_turn(REPORTS):
            with suppress(redis.RedisError):
                read: Any = self._redis.xreadgroup(GROUP, "meddler", {REPORTS: ">"}, count=10, block=500)
                for _, entries in read.items() if isinstance(read, dict) else read or ():
                    entries = entries[0] if entries and isinstance(entries[0], list) else entries
                    self._redis.xack(REPORTS, GROUP, *(entry_id for entry_id, _ in entries))
                    self._redis.xdel(REPORTS, *(entry_id for entry_id, _ in entries))
                    self._meddle(REPORTS, [fields for _, fields in entries])

    def _wait_for_turn(self, where: str) -> bool:
        while self._until[where] < time.monotonic():
            if self._closing.wait(0.05):
                return False
        return not self._closing.is_set()

    def _meddle(self, where: str, messages: list[Any]) -> None:
        if len(messages) > 1 and self._chance.random() < 0.3:
            messages = messages[::-1]
            self.done["reordered"] += len(messages)
        for message in messages:
            deed = self._chance.choice(_DEEDS)
            self.done[deed] += 1
            if deed in ("pass", "double"):
                self._deliver(0.0, where, message)
            if deed in ("delay", "double"):
                self._deliver(self._chance.choice((0.1, 0.5, 2.0, LEASE_SECONDS * 1.5)), where, message)

    def _deliver(self, seconds: float, where: str, message: Any) -> None:
        with self._lock:
            self._held.append((time.monotonic() + seconds, where, message))

    def _late(self) -> None:
        while not self._closing.wait(0.02):
            with self._lock:
                due = [held for held in self._held if held[0] <= time.monotonic()]
            for held in due:
                _, where, message = held
                with suppress(redis.RedisError):  # Redis is away: later
                    if where == TASKS:
                        self._redis.rpush(TASKS, message)
                    else:
                        self._redis.xadd(REPORTS, message)
                    with self._lock:
                        self._held.remove(held)
