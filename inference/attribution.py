"""Whose device time it was: every busy second goes to the rows that were worked for."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from inference import metrics

Clock = Callable[[], float]


class Account(Protocol):
    gpu_seconds: float

    @property
    def tenant(self) -> str: ...


class _Block:
    """A stretch of work that is still going on."""

    seconds = 0.0


class Meter:
    """Seconds since the start: the device busy, attributed to rows, and spent loading for the pool.

    Two threads may work at once, on streams of their own. A moment is then shared evenly between them, so that what
    is attributed is never more than what passed on the clock.
    """

    def __init__(self, clock: Clock, synchronize: Callable[[], None]) -> None:
        """`synchronize` waits until the device has done all that the calling thread gave it."""
        self._clock = clock
        self._synchronize = synchronize
        self._lock = threading.Lock()
        self._open: list[_Block] = []
        self._seen_at = clock()
        self._busy_seconds = 0.0
        self.attributed_seconds = 0.0
        self.load_seconds = 0.0

    @property
    def busy_seconds(self) -> float:
        """Time in which any work was going on, without the blocks that haven't ended yet."""
        return self._busy_seconds - sum(block.seconds for block in self._open)

    @contextmanager
    def charge(self, shares: Sequence[tuple[Account, float]]) -> Iterator[None]:
        """Charge the time of the block to accounts in proportion to their shares, whether it ends well or not.

        The device is synchronised before the clock is read: kernels still queued would be the next block's.
        """
        block = _Block()
        with self._lock:
            self._pass_time()
            self._open.append(block)
        try:
            yield
            self._synchronize()
        finally:
            with self._lock:
                self._pass_time()
                self._open.remove(block)
                self._attribute(block.seconds, shares)

    def _pass_time(self) -> None:
        now = self._clock()
        if self._open:
            self._busy_seconds += now - self._seen_at
            for block in self._open:
                block.seconds += (now - self._seen_at) / len(self._open)
        self._seen_at = now

    def _attribute(self, seconds: float, shares: Sequence[tuple[Account, float]]) -> None:
        metrics.DEVICE_SECONDS.inc(seconds)
        whole = sum(share for _, share in shares)
        for account, share in shares:
            part = seconds * share / whole
            account.gpu_seconds += part
            self.attributed_seconds += part
            metrics.BUSY_SECONDS.labels(account.tenant).inc(part)
        metrics.ATTRIBUTION_DRIFT.set(1 - self.attributed_seconds / self.busy_seconds if self.busy_seconds else 0.0)

    def charge_pool(self, seconds: float) -> None:
        """Time no row asked for: loading the model, warming up."""
        self.load_seconds += seconds
        metrics.LOAD_SECONDS.inc(seconds)
