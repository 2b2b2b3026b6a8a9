"""Looks at stored images in threads, so that no pool's images keep the reports of other pools waiting.

A pool has one check at a time. A turn of the consumer waits a moment for it, since most are done in milliseconds, and
for each pool `WAIT_SECONDS` in a second at most. A report whose images are not looked at yet is read again later, also
while the store is unavailable.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning

import structlog

from easel.catalog.models import Pool
from easel.jobs.stored_images import images_confirmed, images_promised
from easel.storage import store
from inference.contract import AttemptFinished

WAIT_SECONDS = 0.2
RETRY_SECONDS = 1.0  # after the store was unavailable
_THREADS = 8
_CHECKS_MAX = 1000  # whose results are not fetched yet, of all pools

log = structlog.get_logger()


class ImageChecks:
    """The checks of one consumer."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="images")
        self._checks: dict[str, Future[AttemptFinished]] = {}  # by the token of the attempt
        self._last: dict[int, Future[AttemptFinished]] = {}  # of each pool
        self._retry_at: dict[int, float] = {}  # of pools whose store was unavailable
        self._second, self._waited = 0, dict[int, float]()  # seconds that pools were waited for in this second

    def confirmed(self, pool: Pool, report: AttemptFinished) -> AttemptFinished | None:
        """Return the report as it may be believed; None if its images are not looked at yet."""
        token = report.attempt_token
        if token not in self._checks:
            images = images_promised(pool, report)
            if not images:
                return report
            last, began = self._last.get(pool.pk), time.monotonic()
            if (last is not None and not last.done()) or began < self._retry_at.get(pool.pk, 0.0):
                return None
            while len(self._checks) >= _CHECKS_MAX:  # their entries are gone, or another consumer's
                del self._checks[next(iter(self._checks))]
            self._last[pool.pk] = self._checks[token] = self._threads.submit(images_confirmed, store(), images, report)
        began = time.monotonic()
        if int(began) != self._second:
            self._second, self._waited = int(began), {}
        waited = self._waited.get(pool.pk, 0.0)
        try:
            found = self._checks[token].result(timeout=max(0.0, WAIT_SECONDS - waited))
        except StillRunning:
            return None
        except Exception as error:
            log.warning("images_not_checked", pool=pool.slug, error=repr(error))
            self._retry_at[pool.pk] = time.monotonic() + RETRY_SECONDS
            found = None
        finally:
            self._waited[pool.pk] = waited + time.monotonic() - began
        del self._checks[token]
        return found
