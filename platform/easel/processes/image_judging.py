"""Lets the classifier judge images before their job's success is recorded, for tenants whose policy covers images.

A refused image fails the job for good, without a charge: nobody gets a URL of it, and the sweep deletes its file.
Two tries of the classifier take less than half a lease. Each report is judged on its own thread, so that one tenant's
images keep nobody else's waiting.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning
from dataclasses import replace
from functools import partial
from uuid import UUID

import structlog
from django.conf import settings

from easel.catalog.models import Pool
from easel.jobs.errors import ImageBlocked, ImageUnjudged
from easel.jobs.models import Attempt
from easel.jobs.moderation import ModerationUnavailable, image_refused
from easel.jobs.storage_keys import output_key
from easel.storage import store
from inference.contract import AttemptFinished
from tenants.models import Moderation

WAIT_SECONDS = 0.05
_THREADS = 16
_VERDICTS_MAX = 1000  # that are not fetched yet

log = structlog.get_logger()


class ImageJudging:
    """The verdicts that one consumer waits for."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="moderation")
        self._verdicts: dict[str, Future[AttemptFinished]] = {}  # by the token of the attempt

    def judged(self, pool: Pool, report: AttemptFinished) -> AttemptFinished | None:
        """Return the report, or a failure in its place; None while there is no verdict yet."""
        if not settings.EASEL.moderation_url or report.outcome != "succeeded":
            return report
        token = report.attempt_token
        if token not in self._verdicts:
            fetch = _verdict_of(pool, report)
            if fetch is None:
                return report
            while len(self._verdicts) >= _VERDICTS_MAX:
                del self._verdicts[next(iter(self._verdicts))]
            self._verdicts[token] = self._threads.submit(fetch)
        try:
            verdict = self._verdicts[token].result(timeout=WAIT_SECONDS)
        except StillRunning:
            return None
        except Exception as error:
            del self._verdicts[token]
            log.warning("image_not_judged", pool=pool.slug, error=repr(error))
            return None
        del self._verdicts[token]
        return verdict


def _verdict_of(pool: Pool, report: AttemptFinished) -> Callable[[], AttemptFinished] | None:
    """Return what judges the images of a report; None if its tenant's policy doesn't cover images."""
    live = Attempt.objects.filter(token=UUID(report.attempt_token), state=Attempt.State.LIVE, job__pool=pool)
    attempt = live.filter(job__tenant__moderation=Moderation.ALL).select_related("job__tenant").first()
    return None if attempt is None else partial(_verdict, attempt, report)


def _verdict(attempt: Attempt, report: AttemptFinished) -> AttemptFinished:
    job = attempt.job
    code = message = ""
    try:
        for output in report.outputs:
            content = store().get(output_key(job, attempt.token, output.index))
            if image_refused(content, output_format=job.output_format, prompt=job.prompt, tenant=job.tenant):
                code, message = ImageBlocked.code, "an image violates the content policy"
                break
    except ModerationUnavailable:
        code, message = ImageUnjudged.code, "the content policy could not judge the images"
    if not code:
        return report
    log.info("image_blocked", tenant=job.tenant.slug, job=str(job.pk), reason=code)
    return replace(
        report,
        outcome="failed",
        outputs=(),
        error_code=code,
        error_message=message,
        retryable=False,
    )
