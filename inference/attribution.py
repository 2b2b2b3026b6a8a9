"""Attribution of device time: every busy second goes to the rows that the device worked for."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from inference import metrics

Clock = Callable[[], float]  # returns seconds; only differences mean anything


class BusyAccount(Protocol):
    """A row, to which busy GPU seconds are charged."""

    gpu_seconds: float

    @property
    def tenant(self) -> str: ...


class _Charge:
    """A charged block that is still running."""

    seconds = 0.0


class BusyTimeMeter:
    """Totals since the start, in seconds: device busy, attributed to rows, and spent loading for the pool.

    Two threads may work at once, each on its own stream. Time that they share is split evenly between them, so that
    the attributed seconds never exceed the seconds that passed on the clock.
    """

    def __init__(self, clock: Clock, synchronize: Callable[[], None]) -> None:
        """`synchronize` waits until the device has finished all work that the calling thread launched."""
        self._clock = clock
        self._synchronize = synchronize
        self._lock = threading.Lock()
        self._running: list[_Charge] = []
        self._counted_until = clock()
        self._busy_seconds = 0.0
        self.attributed_seconds = 0.0
        self.load_seconds = 0.0

    @property
    def busy_seconds(self) -> float:
        """Seconds in which any charged block ran, without the blocks that have not ended yet."""
        return self._busy_seconds - sum(charge.seconds for charge in self._running)

    @contextmanager
    def charge(self, shares: Sequence[tuple[BusyAccount, float]]) -> Iterator[None]:
        """Charge the block's time to accounts in proportion to their shares, even if the block raises.

        The device is synchronised before the clock is read: kernels still queued would be charged to the next block.
        """
        charge = _Charge()
        with self._lock:
            self._count_time()
            self._running.append(charge)
        try:
            yield
            self._synchronize()
        finally:
            with self._lock:
                self._count_time()
                self._running.remove(charge)
                self._attribute(charge.seconds, shares)

    def _count_time(self) -> None:
        now = self._clock()
        if self._running:
            self._busy_seconds += now - self._counted_until
            for charge in self._running:
                charge.seconds += (now - self._counted_until) / len(self._running)
        self._counted_until = now

    def _attribute(self, seconds: float, shares: Sequence[tuple[BusyAccount, float]]) -> None:
        metrics.DEVICE_SECONDS.inc(seconds)
        total = sum(share for _, share in shares)
        for account, share in shares:
            part = seconds * share / total
            account.gpu_seconds += part
            self.attributed_seconds += part
            metrics.BUSY_SECONDS.labels(account.tenant).inc(part)
        metrics.ATTRIBUTION_DRIFT.set(1 - self.attributed_seconds / self.busy_seconds if self.busy_seconds else 0.0)

    def charge_pool(self, seconds: float) -> None:
        """Charge to the pool time that no row asked for: model load and warm-up."""
        self.load_seconds += seconds
        metrics.LOAD_SECONDS.inc(seconds)
