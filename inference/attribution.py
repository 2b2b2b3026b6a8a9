"""Whose device time it was: every busy second goes to the rows that were worked for."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from inference import metrics

Clock = Callable[[], float]


class Account(Protocol):
    """A row that device time is charged to, in proportion to `work` (its tokens)."""

    gpu_seconds: float

    @property
    def work(self) -> int: ...

    @property
    def tenant(self) -> str: ...


class Meter:
    """Seconds since the start: measured busy, attributed to rows, and spent loading for the pool."""

    def __init__(self, clock: Clock, synchronize: Callable[[], None]) -> None:
        self._clock = clock
        self._synchronize = synchronize
        self.busy_seconds = 0.0
        self.attributed_seconds = 0.0
        self.load_seconds = 0.0

    @contextmanager
    def charge(self, accounts: Sequence[Account]) -> Iterator[None]:
        """Charge the time of the block to `accounts`, whether it ends well or not.

        The device is synchronised before the clock is read: kernels still queued would be the next block's.
        """
        begun = self._clock()
        try:
            yield
            self._synchronize()
        finally:
            seconds = self._clock() - begun
            self.busy_seconds += seconds
            metrics.DEVICE_SECONDS.inc(seconds)
            work = sum(account.work for account in accounts)
            for account in accounts:
                share = seconds * account.work / work
                account.gpu_seconds += share
                self.attributed_seconds += share
                metrics.BUSY_SECONDS.labels(account.tenant).inc(share)

    def charge_pool(self, seconds: float) -> None:
        """Time no row asked for: loading the model, warming up."""
        self.load_seconds += seconds
        metrics.LOAD_SECONDS.inc(seconds)
