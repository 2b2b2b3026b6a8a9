"""Puts right what the worker of a dedicated pool says of its attempts, by what the control plane knows itself.

A tenant may run the workers of its dedicated pool, so what they say is not believed:

- GPU seconds. An attempt's share of the pool's time, by our clock from its dispatch to its end, is the most that it can
  have taken: at each moment the attempts that the pool holds share its live workers by their work. Reported seconds
  stand if they are plausible: no more than this share and no less than a quarter of it, as those of an honest worker
  that waits for its uploads. Else the share itself is taken. So the seconds of all attempts sum to no more than the
  clock's. Attempts that fail are free and have had their shares: what can't be known is on the page of security.
- The GPU class is the pool's. A job was canceled or expired only if we know of it. An error's code is one that we know.
- Progress is no more than was asked for, and phases are in their order, within the time since the dispatch.

An attempt whose job is over, canceled or expired gets no longer lease, whatever its worker does.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from math import prod
from typing import NamedTuple
from uuid import UUID

from django.db.models import Q

from easel.catalog.models import Pool, Worker
from easel.catalog.workers import WORKER_SILENCE_SECONDS
from easel.jobs.errors import ERROR_CODES_OF_WORKERS, ReportFalse
from easel.jobs.models import Attempt, Job
from inference.contract import PHASES, AttemptFinished, AttemptProgress, Phase

PLAUSIBLE_SHARE_MIN = 0.25
_CLOCKS_DIFFER = timedelta(minutes=1)
_OVERLAPS_MAX = 2000  # attempts that are looked at one by one


def is_believed(pool: Pool) -> bool:
    """Return true if the operator runs a pool's workers: a shared pool's, or a tier's."""
    return pool.tenant_id is None


def end_confirmed(pool: Pool, job: Job, attempt: Attempt, report: AttemptFinished, now: datetime) -> AttemptFinished:
    """Return an attempt's end as the control plane records it. The images have been looked at before."""
    ended_at = attempt.finished_at or now
    share = gpu_seconds_share(pool, job, attempt, ended_at)
    is_plausible = PLAUSIBLE_SHARE_MIN * share <= report.gpu_seconds <= share
    code, message = report.error_code, report.error_message
    outcome, retryable = report.outcome, report.retryable
    if (outcome == "canceled" and job.cancel_requested_at is None) or (
        outcome == "expired" and now + _CLOCKS_DIFFER < job.expires_at
    ):
        outcome, retryable, code = "failed", True, ReportFalse.code
        message = f"the worker reported that the job was {report.outcome}, and it was not"
    elif outcome == "failed" and code not in ERROR_CODES_OF_WORKERS:
        code = "internal_error"
    return replace(
        report,
        gpu_class=pool.gpu_class,
        gpu_seconds=report.gpu_seconds if is_plausible else share,
        outcome=outcome,
        retryable=retryable,
        error_code=code,
        error_message=message,
        steps_done=min(max(report.steps_done, attempt.steps_done), job.steps * job.n),  # none is taken back
        # A token is a byte of the prompt or more; the template of a chat around it has a few.
        prompt_tokens=min(report.prompt_tokens, len(job.prompt.encode()) + 64),
        phases=_phases_confirmed(report.phases, attempt, ended_at),
    )


def progress_confirmed(
    pool: Pool, progress: Mapping[UUID, AttemptProgress], now: datetime, *, lease_seconds: int
) -> tuple[dict[UUID, AttemptProgress], dict[UUID, datetime]]:
    """Return the possible progress of the pool's live attempts, and the end of the lease that a beat gives to each."""
    live = Attempt.objects.filter(token__in=progress, state=Attempt.State.LIVE, job__pool=pool).select_related("job")
    confirmed, leases = {}, {}
    for attempt in live:
        job, reported = attempt.job, progress[attempt.token]
        previews = {
            (index, number) for index, number in reported.previews if index < job.n and number < job.partial_images
        }
        confirmed[attempt.token] = replace(
            reported,
            steps_done=min(reported.steps_done, job.steps * job.n),
            previews=tuple(sorted(previews)),
            phases=_phases_confirmed(reported.phases, attempt, now),
        )
        ends_at = min(filter(None, (now, job.expires_at, job.cancel_requested_at)))
        leases[attempt.token] = ends_at + timedelta(seconds=lease_seconds)
    return confirmed, leases


class _Change(NamedTuple):
    """A change of what a pool holds beside an attempt: work of its class, and attempts of the class before it."""

    now: datetime
    work: float
    ahead: int


def gpu_seconds_share(pool: Pool, job: Job, attempt: Attempt, ended_at: datetime) -> float:
    """Return an attempt's share of its pool's device time, in seconds, from its dispatch to its end.

    The jobs of batches share what others leave them: each of the others has a device for itself, as long as there are.
    """
    began_at = attempt.dispatched_at
    held = Attempt.objects.filter(job__pool=pool, dispatched_at__lt=ended_at).exclude(pk=attempt.pk)
    held = held.filter(Q(state=Attempt.State.LIVE) | Q(finished_at__gt=began_at))
    if not job.in_batch:
        held = held.filter(job__in_batch=False)
    columns = ("dispatched_at", "finished_at", "job__in_batch", "job__width", "job__height", "job__steps", "job__n")
    changes = []
    for count, (since, until, in_batch, *factors) in enumerate(held.values_list(*columns).iterator()):
        is_ahead = job.in_batch and not in_batch
        work, ahead = (0.0, 1) if is_ahead else (float(prod(factors)), 0)
        changes.append(_Change(max(since, began_at) if count < _OVERLAPS_MAX else began_at, work, ahead))
        # The rest count as if they were held all the time: the sum of all shares stays within the clock's.
        if until is not None and until < ended_at and count < _OVERLAPS_MAX:
            changes.append(_Change(until, -work, -ahead))
    return _share_seconds(float(job.work), changes, began_at, ended_at, devices=_devices(pool, ended_at))


def _share_seconds(
    work: float, changes: Iterable[_Change], began_at: datetime, ended_at: datetime, *, devices: int
) -> float:
    """Sum the time from begin to end, at each moment times the share that `work` has of the devices then."""
    seconds, others, ahead, last = 0.0, 0.0, 0, began_at
    for change in sorted([*changes, _Change(ended_at, 0.0, 0)]):
        passed = max(0.0, (change.now - last).total_seconds())
        seconds += passed * min(1.0, max(0, devices - ahead) * work / (work + max(0.0, others)))
        last = max(last, change.now)
        others, ahead = others + change.work, ahead + change.ahead
    return seconds


def _devices(pool: Pool, now: datetime) -> int:
    """Return the number of the pool's live workers, each of which has one device, at least 1."""
    silent_since = now - timedelta(seconds=WORKER_SILENCE_SECONDS)
    return max(1, Worker.objects.filter(pool=pool, beat_at__gte=silent_since).count())


def _phases_confirmed(reported: Mapping[Phase, float], attempt: Attempt, now: datetime) -> dict[Phase, float]:
    """Return the phases that are in their order and within the time since the dispatch."""
    confirmed: dict[Phase, float] = {}
    low, high = 0.0, (now - attempt.dispatched_at).total_seconds()
    for phase in PHASES:
        if phase in reported and low <= reported[phase] <= high:
            confirmed[phase] = low = reported[phase]
    return confirmed
