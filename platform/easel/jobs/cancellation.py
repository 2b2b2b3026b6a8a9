"""Ends a job that nobody wants any more."""

import contextlib
from datetime import datetime

from redis.exceptions import RedisError

from easel.jobs import lifecycle, queries, transport
from easel.jobs.models import Job


def job_cancel(job: Job, *, now: datetime) -> None:
    """Cancels a waiting job at once, and asks the worker that has it to stop; a finished one stays as it is."""
    lifecycle.cancel(job=job, now=now)
    # Without Redis the request is on record all the same: a lost attempt's job ends canceled.
    with contextlib.suppress(RedisError):
        transport.ask_to_cancel(job.pool, queries.live_tokens(job), now=now)
