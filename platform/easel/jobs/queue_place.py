"""The place of a job in the queue of its pool, and the seconds until it ends.

The place is the job's number in the order in which the dispatcher would take the waiting jobs now (`queue.order_read`,
which runs the dispatcher's own `choose`). It counts the jobs of all tenants, and leaves out what a tenant's cap or the
quarantine holds back. Jobs that come later may go first, if their tenant was served less or their priority is higher.

The estimate simulates the pool: its live workers share their time evenly among the jobs that they run at once, and each
job takes the GPU seconds that the pool measured for a pixel-step of its latest jobs. It leaves out later jobs, and the
time for sending and storing, and jobs of batches, which take no time of the others. It is None if nothing was
measured, if no worker is live, or for a job of a batch: that goes on when the pool is idle, which nobody knows. Its
place is among the jobs of batches.
"""

import heapq
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from django.db import connection
from typing_extensions import TypedDict

from core.tenant_scope import platform_scope
from easel.jobs import queue
from easel.jobs.models import Job, State
from easel.jobs.waits import WaitReason

POSITION_MAX = 500  # as many waiting jobs are read: a place behind them is only known to be behind them
_FOLLOWERS_MAX = 64  # waiting jobs that share the workers of a running job later


class QueuePlace(TypedDict):
    """The place of an unfinished job. `position` is 1 for the job that is dispatched next, and null once it is.

    `position_is_exact` is false for a job behind the first 500, whose `position` is then the least that it can be.
    `waits_for` is the reason for which it waits now.
    """

    position: int | None
    position_is_exact: bool
    ahead_in_your_account: int | None
    waits_for: str | None
    eta_seconds: float | None


class Load(NamedTuple):
    """A job in the estimate, and the GPU seconds that it still needs."""

    job_id: UUID
    tenant_id: UUID
    seconds: float


@platform_scope()  # the place depends on other tenants' jobs, of which it says nothing else
def queue_place(job: Job, *, now: datetime) -> QueuePlace | None:
    """Return the place of a job, or None if it has ended. Takes no lock."""
    if job.finished_at is not None:
        return None
    is_waiting = job.state == State.QUEUED
    if job.in_batch and not is_waiting:
        return _place(None, None, None, None)
    jobs_max = POSITION_MAX if is_waiting else _FOLLOWERS_MAX
    order = queue.order_read(job=job, now=now, jobs_max=jobs_max)
    if not is_waiting:
        return _place(None, None, None, _eta_seconds(job, order))
    ids = [taken.job_id for taken in order.jobs]
    if job.pk not in ids:
        if len(ids) == POSITION_MAX:
            return {**_place(POSITION_MAX + 1, None, None, None), "position_is_exact": False}
        return _place(None, None, WaitReason.QUARANTINE if job.quarantined else None, None)
    ahead = order.jobs[: ids.index(job.pk)]
    own_ahead = sum(taken.tenant_id == job.tenant_id for taken in ahead)
    if not order.load.workers:
        reason = WaitReason.NO_LIVE_WORKER
    elif job.in_batch:
        reason = WaitReason.IDLE_POOL
    elif own_ahead >= order.headroom.get(job.tenant_id, POSITION_MAX):
        reason = WaitReason.CONCURRENCY_LIMIT
    elif not ahead:
        reason = WaitReason.FREE_WORKER
    else:
        reason = WaitReason.OWN_JOBS if own_ahead == len(ahead) else WaitReason.OTHER_TENANTS
    return _place(len(ahead) + 1, own_ahead, reason, _eta_seconds(job, order))


def _place(position: int | None, own_ahead: int | None, reason: WaitReason | None, eta: float | None) -> QueuePlace:
    return {
        "position": position,
        "position_is_exact": True,
        "ahead_in_your_account": own_ahead,
        "waits_for": reason.value if reason else None,
        "eta_seconds": None if eta is None else round(eta, 1),
    }


_RUNNING = """
SELECT job.id, job.tenant_id,
    job.width::float8 * job.height * greatest(job.steps * job.n - coalesce(attempt.steps_done, 0), 0)
FROM jobs_job AS job LEFT JOIN jobs_attempt AS attempt ON attempt.job_id = job.id AND attempt.state = 'live'
WHERE job.pool_id = %(pool)s AND job.state IN ('dispatched', 'running') AND NOT job.in_batch
"""


def _running_read(job: Job) -> list[Load]:
    """Return the jobs of no batch that the pool's workers have begun, with their pixel-steps left for `seconds`."""
    with connection.cursor() as cursor:
        cursor.execute(_RUNNING, {"pool": job.pool_id})
        return [Load(*row) for row in cursor.fetchall()]


def _eta_seconds(job: Job, order: queue.Order) -> float | None:
    rate = order.load.gpu_seconds_per_pixel_step
    if rate is None or not order.load.workers or job.in_batch:
        return None
    return simulate(
        running=[one._replace(seconds=one.seconds * rate) for one in _running_read(job)],
        waiting=[Load(one.job_id, one.tenant_id, one.work * rate) for one in order.uncapped_jobs],
        workers=order.load.workers,
        concurrency=order.load.places,
        headroom=order.headroom,
        job_id=job.pk,
    )


def simulate(
    *,
    running: Sequence[Load],
    waiting: Sequence[Load],
    workers: int,
    concurrency: int,
    headroom: Mapping[UUID, int],
    job_id: UUID,
) -> float | None:
    """Return the seconds until a job has ended; None if it never does.

    Each of `workers` gives a GPU second per second, shared evenly among all jobs that run, and no job gets more than
    one. `waiting` begin in their order when one of `concurrency` places is free, except those of a tenant that has no
    `headroom` left.
    """
    room, left = dict(headroom), list(waiting)
    seconds = served = 0.0  # since now; and what a job that runs since now was given
    ends: list[tuple[float, int, Load]] = []  # each with what `served` will be when it ends
    for number, load in enumerate(running):
        heapq.heappush(ends, (load.seconds, -number, load))
    for _ in range(len(running) + len(waiting)):
        while len(ends) < concurrency:
            place = next((i for i, load in enumerate(left) if room.get(load.tenant_id, 1) > 0), None)
            if place is None:
                break
            load = left.pop(place)
            if load.tenant_id in room:
                room[load.tenant_id] -= 1
            heapq.heappush(ends, (served + load.seconds, len(left), load))
        if not ends:
            return None
        speed = min(1.0, workers / len(ends))
        end, _, load = heapq.heappop(ends)
        seconds, served = seconds + (end - served) / speed, end
        if load.job_id == job_id:
            return seconds
        if load.tenant_id in room:
            room[load.tenant_id] += 1
    return None
