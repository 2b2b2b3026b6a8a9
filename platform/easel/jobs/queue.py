"""Reads the queue of a pool: its load, the tenants with jobs in it, and the waiting jobs that come first.

It reads one row per waiting tenant and as many jobs as are asked for, however long the queues are. Only a dispatcher's
turn (`dispatch.py`) asks for locks; a job's place in the queue (`queue_place.py`) and a batch's room need none.

Jobs of batches are a class of their own below all others. Other jobs have the pool's room as if there were no batches,
which get what those leave of it. Between batches the same fairness holds, by virtual times of their own.
"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby, islice
from typing import NamedTuple

from django.db.models import Count, Exists, OuterRef

from core.pipeline import PipelinedQuery, query_rows, run_query
from easel.catalog.models import Pool
from easel.catalog.workers import WORKER_SILENCE_SECONDS
from easel.jobs.fair_queueing import (
    RATE_UNMEASURED,
    RELEASED_MAX,
    ActiveTenant,
    Contender,
    Waiting,
    choose,
    contenders_of,
)
from easel.jobs.models import BatchShare, FairShare, Job, Share, State
from tenants.models import Tenant


class JobClass(NamedTuple):
    """A class of jobs: those of batches, or all others."""

    in_batch: bool
    shares: type[Share]  # their virtual times


URGENT = JobClass(in_batch=False, shares=FairShare)
BATCH = JobClass(in_batch=True, shares=BatchShare)


class PoolLoad(NamedTuple):
    """The load of a pool, as a dispatcher sees it that releases jobs of one class."""

    workers: int  # its live workers that run jobs
    places: int  # jobs that they can run at a time
    room: int  # jobs of this class that they can take in addition to those that are dispatched or running
    quarantine_is_full: bool  # a quarantined job that this class waits for is dispatched or running
    virtual_time_max: float  # the highest virtual time of a tenant in this class
    gpu_seconds_per_pixel_step: float | None  # measured over its latest attempts; None before the first


def pool_load(*, pool: Pool, now: datetime) -> PoolLoad:
    """Return the load of a pool as it is for jobs that are of no batch."""
    return run_query(pool_load_query(pool, now, URGENT))


_POOL_LOAD = """
SELECT live.workers, live.places, live.places - unfinished.jobs, unfinished.quarantined,
    coalesce(share.virtual_time, 0), measured.rate
FROM (
    SELECT count(*) FILTER (WHERE concurrency > 0), coalesce(sum(concurrency), 0)
    FROM catalog_worker WHERE pool_id = %(pool)s AND beat_at >= %(silent_since)s
) AS live (workers, places)
CROSS JOIN (
    SELECT count(*), coalesce(bool_or(quarantined), false) FROM jobs_job
    WHERE pool_id = %(pool)s AND state IN ('dispatched', 'running') AND (%(in_batch)s OR NOT in_batch)
) AS unfinished (jobs, quarantined)
CROSS JOIN (
    SELECT max(virtual_time) FROM {shares} WHERE pool_id = %(pool)s
) AS share (virtual_time)
CROSS JOIN (
    SELECT sum(measured_seconds) / nullif(sum(measured_work), 0)
    FROM (
        SELECT measured_seconds, measured_work FROM jobs_fairshare WHERE pool_id = %(pool)s
        UNION ALL SELECT measured_seconds, measured_work FROM jobs_batchshare WHERE pool_id = %(pool)s
    ) AS both_classes
) AS measured (rate)
"""


def pool_load_query(pool: Pool, now: datetime, jobs: JobClass) -> PipelinedQuery[PoolLoad]:
    """Return the load of a pool. Jobs of batches wait for all others; the others don't wait for those of batches."""
    silent_since = now - timedelta(seconds=WORKER_SILENCE_SECONDS)
    sql = _POOL_LOAD.format(shares=jobs.shares._meta.db_table)
    [row] = yield from query_rows(sql, pool=pool.pk, silent_since=silent_since, in_batch=jobs.in_batch)
    return PoolLoad(*row)


# The recursion steps from one tenant to the next in the index of the queue; `DISTINCT` would read every queued job.
_ACTIVE_TENANTS = """
WITH RECURSIVE waiting (tenant_id) AS (
    (
        SELECT tenant_id FROM jobs_job
        WHERE pool_id = %(pool)s AND state = 'queued' AND in_batch = %(in_batch)s ORDER BY tenant_id LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT tenant_id FROM jobs_job
        WHERE pool_id = %(pool)s AND state = 'queued' AND in_batch = %(in_batch)s AND tenant_id > waiting.tenant_id
        ORDER BY tenant_id LIMIT 1
    ) FROM waiting WHERE tenant_id IS NOT NULL
), running (tenant_id) AS (
    SELECT DISTINCT tenant_id FROM jobs_job
    WHERE pool_id = %(pool)s AND state IN ('dispatched', 'running') AND in_batch = %(in_batch)s
)
SELECT tenant.id, waiting.tenant_id IS NOT NULL, running.tenant_id IS NOT NULL,
    tenant.running_jobs_max, tenant.fair_share_weight, share.virtual_time, coalesce(share.waiting, false),
    share.capped_since
FROM (SELECT tenant_id FROM waiting WHERE tenant_id IS NOT NULL) AS waiting FULL JOIN running USING (tenant_id)
JOIN tenants_tenant AS tenant ON tenant.id = tenant_id
LEFT JOIN {shares} AS share ON share.tenant_id = tenant.id AND share.pool_id = %(pool)s
"""


def active_tenants(pool: Pool, jobs: JobClass = URGENT) -> list[ActiveTenant]:
    """Return the tenants with jobs of this class in the pool, waiting or running."""
    sql = _ACTIVE_TENANTS.format(shares=jobs.shares._meta.db_table)
    return [ActiveTenant(*row) for row in run_query(query_rows(sql, pool=pool.pk, in_batch=jobs.in_batch))]


def with_headroom(tenants: list[ActiveTenant], jobs: JobClass = URGENT, *, lock: bool) -> list[ActiveTenant]:
    """Set the headroom of each tenant that has a cap on its running jobs, which holds for all pools together.

    With `lock` the rows of these tenants are locked, so that two pools don't both take a tenant's last place. Running
    jobs of batches take no place from the tenant's others, and get the places that those leave.
    """
    caps = {t.tenant_id: t.running_max for t in tenants if t.is_waiting and t.running_max is not None}
    if not caps:
        return tenants
    if lock:
        list(Tenant.objects.select_for_update(no_key=True).filter(pk__in=caps).order_by("pk").values_list("pk"))
    pools = list(Pool.objects.values_list("pk", flat=True))  # the index of unfinished jobs begins with the pool
    running = Job.objects.filter(pool__in=pools, state__in=(State.DISPATCHED, State.RUNNING), tenant__in=caps)
    if not jobs.in_batch:
        running = running.filter(in_batch=False)
    counts = dict(running.order_by().values_list("tenant").annotate(count=Count("id")))
    headroom = {tenant_id: cap - counts.get(tenant_id, 0) for tenant_id, cap in caps.items()}
    return [tenant._replace(headroom=headroom.get(tenant.tenant_id, RELEASED_MAX)) for tenant in tenants]


def first_in_turn(
    contenders: Sequence[Contender],
    *,
    pool: Pool,
    jobs: JobClass,
    room: int,
    now: datetime,
    quarantine_is_full: bool,
    lock: bool,
) -> list[Contender]:
    """Return the `room` contenders with the least virtual time that have a job to run, with their jobs.

    No other tenant can have a turn, because each of these runs at least one job. A contender is passed over if its jobs
    are all locked by others, expired, or held back by the quarantine. With `lock` the jobs are locked.
    """
    by_turn = iter(sorted(contenders, key=lambda contender: contender.turn))
    first: list[Contender] = []
    while more := list(islice(by_turn, room - len(first))):
        query = query_rows(
            _JOBS_LOCKED if lock else _JOBS,
            pool=pool.pk,
            in_batch=jobs.in_batch,
            tenants=[contender.tenant_id for contender in more],
            headroom=[min(room, contender.headroom) for contender in more],
            now=now,
            quarantine_is_full=quarantine_is_full,
        )
        waiting = {tenant: list(own) for tenant, own in groupby(run_query(query), lambda row: row[0])}
        for contender in more:
            contender.jobs = [Waiting(*row[1:]) for row in waiting.get(contender.tenant_id, ())]
        first += [contender for contender in more if contender.jobs]
    return first


_JOBS = """
SELECT headroom.tenant_id, job.id, job.work, job.quarantined
FROM unnest(%(tenants)s::uuid[], %(headroom)s::int[]) AS headroom (tenant_id, jobs)
CROSS JOIN LATERAL (
    SELECT id, width::float8 * height * steps * n AS work, quarantined FROM jobs_job
    WHERE pool_id = %(pool)s AND tenant_id = headroom.tenant_id AND state = 'queued' AND in_batch = %(in_batch)s
        AND expires_at > %(now)s AND NOT (quarantined AND %(quarantine_is_full)s)
    ORDER BY priority DESC, created_at, id LIMIT headroom.jobs
) AS job
"""
# SKIP LOCKED: a job that is being canceled at this moment is passed over.
_JOBS_LOCKED = _JOBS.replace("\n) AS job", "\n    FOR NO KEY UPDATE SKIP LOCKED\n) AS job")


def any_waits(pool: Pool) -> bool:
    """Return True if a job that is of no batch waits for room in the pool."""
    return any(tenant.is_waiting and tenant.headroom > 0 for tenant in with_headroom(active_tenants(pool), lock=False))


def batch_room(*, pool: Pool, load: PoolLoad) -> int:
    """Return the number of jobs of batches that a pool can run at a time; 0 while another job waits for its room."""
    return 0 if any_waits(pool) else load.places


def pools_with_waiting_batches() -> list[Pool]:
    """Return the pools in which jobs of batches are queued."""
    queued = Job.objects.filter(state=State.QUEUED, in_batch=True, pool=OuterRef("pk"))
    return list(Pool.objects.filter(Exists(queued)).order_by("pk"))


class Taken(NamedTuple):
    """A waiting job in the order in which it would be taken; `work` is in pixel-steps."""

    job_id: uuid.UUID
    tenant_id: uuid.UUID
    work: float


class Order(NamedTuple):
    """The waiting jobs of a pool in the dispatcher's order.

    `jobs` leaves out what other tenants' caps hold back now, `uncapped_jobs` nothing of that. `headroom` is the number
    of jobs that each tenant with a cap may run in addition. `load` is the pool's.
    """

    jobs: list[Taken]
    uncapped_jobs: list[Taken]
    headroom: dict[uuid.UUID, int]
    load: PoolLoad


def order_read(*, job: Job, now: datetime, jobs_max: int) -> Order:
    """Return the next `jobs_max` jobs that the dispatcher would take from the pool of `job` if its tenant had no cap.

    They are of the class of `job`: of batches, or not. Takes no lock.
    """
    pool, jobs = job.pool, BATCH if job.in_batch else URGENT
    load: PoolLoad = run_query(pool_load_query(pool, now, jobs))
    tenants = with_headroom(active_tenants(pool, jobs), jobs, lock=False)
    headroom = {t.tenant_id: max(0, t.headroom) for t in tenants if t.is_waiting and t.running_max is not None}

    def order(headroom: Mapping[uuid.UUID, int]) -> list[Taken]:
        free = [tenant._replace(headroom=headroom.get(tenant.tenant_id, jobs_max)) for tenant in tenants]
        contenders, _ = contenders_of(free, load.virtual_time_max)
        full = load.quarantine_is_full
        first = first_in_turn(
            contenders, pool=pool, jobs=jobs, room=jobs_max, now=now, quarantine_is_full=full, lock=False
        )
        taken = {one.job_id: Taken(one.job_id, owner.tenant_id, one.work) for owner in first for one in owner.jobs}
        chosen = choose(first, room=jobs_max, rate=load.gpu_seconds_per_pixel_step or RATE_UNMEASURED)
        return [taken[one.job_id] for one in chosen]

    others = {owner: room for owner, room in headroom.items() if owner != job.tenant_id}
    uncapped = order({})
    return Order(order(others) if others else uncapped, uncapped, headroom, load)
