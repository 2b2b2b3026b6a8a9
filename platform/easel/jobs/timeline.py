"""A job's timeline: what happened to it and when, and why it waited.

The API, the portal and `easel job show` make it from the same rows. A tenant sees the names of workers only of its own
dedicated pool: in a shared pool they are the platform's internals.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from typing_extensions import TypedDict

from core.tenant_scope import platform_scope
from easel.jobs.models import Attempt, Job, State
from easel.jobs.phases import phase_instants
from easel.jobs.waits import Wait, waits

# What happened once a phase was reached. Adapters are fetched for each attempt, so a job without any leaves it out.
_EVENTS = {
    "began": "began",
    "adapters": "adapters_fetched",
    "prepared": "prepared",
    "first_step": "first_step",
    "steps": "steps_done",
    "stored": "stored",
}


class Moment(NamedTuple):
    """A row of the timeline. `seconds` and `reason` are of a wait that began then, `code` of an attempt or job."""

    happened_at: datetime
    event: str
    attempt: int | None = None
    seconds: float | None = None
    reason: str | None = None
    code: str | None = None
    worker: str | None = None


class TimelineEvent(TypedDict):
    """An event of a job. A `waited` has the `seconds` and the `reason` of the wait that began then."""

    time: datetime
    event: str
    attempt: int | None
    seconds: float | None
    reason: str | None
    code: str | None
    worker: str | None


def job_timeline(job: Job, attempts: Sequence[Attempt], *, lease_seconds: int, now: datetime) -> list[Moment]:
    """Return what happened to a job, in order. A wait that has not ended yet lasts until `now`."""
    moments = [Moment(job.created_at, "queued")]
    for attempt in attempts:
        moments += _attempted(attempt, has_adapters=bool(job.adapters.all()))
    with platform_scope():  # what a job waited for may be jobs of other tenants, of which it says nothing else
        moments += [_waited(wait) for wait in waits(job, attempts, lease_seconds=lease_seconds, now=now)]
    if job.abandoned_at is not None:
        moments.append(Moment(job.abandoned_at, "client_disconnected"))
    if job.cancel_requested_at is not None:
        moments.append(Moment(job.cancel_requested_at, "cancel_requested"))
    if job.cached_from_id is not None and job.finished_at is not None:
        moments.append(Moment(job.finished_at, "answered_from_cache"))
    if job.finished_at is not None:
        moments.append(Moment(job.finished_at, State(job.state).value, code=job.error_code or None))
    if job.images_deleted_at is not None:
        moments.append(Moment(job.images_deleted_at, "images_deleted"))
    if job.deleted_at is not None:
        moments.append(Moment(job.deleted_at, "texts_deleted"))
    return sorted(moments, key=lambda moment: moment.happened_at)  # what happened at one instant stays in order


def timeline_json(job: Job, moments: Sequence[Moment]) -> list[TimelineEvent]:
    """Return a timeline as its tenant sees it."""
    shows_workers = job.pool.tenant_id == job.tenant_id
    return [
        {
            "time": moment.happened_at,
            "event": moment.event,
            "attempt": moment.attempt,
            "seconds": None if moment.seconds is None else round(moment.seconds, 3),
            "reason": moment.reason,
            "code": moment.code,
            "worker": moment.worker if shows_workers else None,
        }
        for moment in moments
    ]


def _waited(wait: Wait) -> Moment:
    return Moment(wait.began_at, "waited", wait.attempt, wait.seconds, wait.reason.value)


def _attempted(attempt: Attempt, *, has_adapters: bool) -> Iterator[Moment]:
    worker = attempt.worker or None
    yield Moment(attempt.dispatched_at, "dispatched", attempt.number, worker=worker)
    for phase, happened_at in phase_instants(attempt).items():
        if phase != "adapters" or has_adapters:
            yield Moment(happened_at, _EVENTS[phase], attempt.number, worker=worker)
    if attempt.finished_at is not None and attempt.state != Attempt.State.SUCCEEDED:
        event = f"attempt_{attempt.state}"
        yield Moment(attempt.finished_at, event, attempt.number, code=attempt.error_code or None, worker=worker)
