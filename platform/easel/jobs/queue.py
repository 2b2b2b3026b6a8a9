"""Decides which queued job runs next, and leases it to a pool: weighted fair queueing between tenants.

`release` is one turn of a dispatcher at one pool. It fills the pool's free room: `choose` takes the next jobs, and each
gets its next attempt, under a lease. Within a tenant, jobs go by priority, then by age.

Each tenant has a virtual time per pool: the GPU seconds that it was given there, divided by its weight. The waiting
tenant with the least virtual time goes next. It is charged at once for the estimated GPU seconds of its job, so a
burst of a thousand jobs delays only its own tenant. When the attempt ends, `correct` replaces the estimate by the
measured seconds: a wrong estimate costs that tenant its turn and no other. A tenant that returns after a pause is
lifted to the least virtual time of the tenants that were active, so that it can't use its pause to jump ahead
(virtual-time counters, Sheng et al., OSDI 2024).

A turn reads one row per waiting tenant and as many jobs as it may release, however long the queues are. A request to
an idle system waits for one whole turn, so a turn takes only four round trips and its commit, and three more if a
waiting tenant has a cap on running jobs.

Jobs of batches are a class of their own below all others. `release` neither takes nor counts them: other jobs have the
pool's room as if there were no batches. `release_batch` fills what they leave of it, and workers give the jobs of
batches only the time in which they have nothing else to do. Between batches the same fairness holds, by virtual times
of their own.
"""

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby, islice
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.db.models import Count, Exists, F, OuterRef, Value
from django.db.models.functions import Greatest

from core.pipeline import PipelinedQuery, Query, Rows, run_pipelined, run_query
from easel.catalog.models import Pool
from easel.catalog.workers import WORKER_SILENCE_SECONDS
from easel.jobs.models import Attempt, BatchShare, FairShare, Job, Share, State, shares_of
from tenants.models import Tenant

RELEASED_MAX = 64  # jobs per turn, so that the turn holds its locks briefly
TURN_IDLE_MS_MAX = 2000  # PostgreSQL ends the turn of a dispatcher that hangs for so long, and others go on
# GPU seconds of a pixel-step before the pool has measured any. Any value will do: it is the same for all tenants.
_RATE_UNMEASURED = 1e-6
RATE_DECAY = 0.98  # exponential decay per finished attempt


class _Class(NamedTuple):
    """A class of jobs: those of batches, or all others."""

    in_batch: bool
    shares: type[Share]  # their virtual times


_URGENT = _Class(in_batch=False, shares=FairShare)
_BATCH = _Class(in_batch=True, shares=BatchShare)


class Waiting(NamedTuple):
    """A queued job. `work` is in pixel-steps. A quarantined job runs only while no other quarantined job does."""

    job_id: uuid.UUID
    work: float
    quarantined: bool = False


@dataclass(slots=True)
class Contender:
    """A tenant with waiting jobs: its virtual time in seconds, its weight, and its jobs in the order they run.

    It may have `headroom` more jobs running.
    """

    tenant_id: uuid.UUID
    virtual_time: float
    weight: int
    jobs: list[Waiting]
    headroom: int = RELEASED_MAX

    @property
    def turn(self) -> tuple[float, uuid.UUID]:
        """The contender with the least one has the next turn."""
        return self.virtual_time, self.tenant_id


class Chosen(NamedTuple):
    """A job to release, and the estimated GPU seconds that its tenant is charged with."""

    job_id: uuid.UUID
    seconds: float


def choose(contenders: Iterable[Contender], *, room: int, rate: float = 1.0) -> list[Chosen]:
    """Return the next `room` jobs, in order, and charge the virtual time of their contenders.

    `rate` is the estimate of GPU seconds per pixel-step.
    """
    contenders = list(contenders)
    chosen: list[Chosen] = []
    while len(chosen) < room and (waiting := [contender for contender in contenders if contender.jobs]):
        # This line decides which job runs next.
        next_up = min(waiting, key=lambda contender: contender.turn)
        job = next_up.jobs.pop(0)
        chosen.append(Chosen(job.job_id, job.work * rate))
        next_up.virtual_time += job.work * rate / next_up.weight
        if job.quarantined:
            for contender in waiting:
                contender.jobs = [job for job in contender.jobs if not job.quarantined]
    return chosen


@transaction.atomic
def release(*, pool: Pool, now: datetime, lease_seconds: int) -> list[Attempt]:
    """Fill a pool's free room with waiting jobs; return their attempts, which the caller sends after the commit.

    Any number of dispatchers may call this at once: a lock per pool makes them take turns.
    """
    load = _turn_begin(pool, now, _URGENT)
    return _release(pool, load, _URGENT, room=load.room, now=now, lease_seconds=lease_seconds)


@transaction.atomic
def release_batch(*, pool: Pool, now: datetime, lease_seconds: int) -> list[Attempt]:
    """Fill what is idle of a pool with jobs of batches; return their attempts, as `release` does.

    It releases none while another job waits for room in the pool. A job that waits only because of its tenant's own cap
    on running jobs doesn't count: a batch takes nothing from it.
    """
    load = _turn_begin(pool, now, _BATCH)
    if load.room <= 0 or _any_waits(pool):
        return []
    return _release(pool, load, _BATCH, room=load.room, now=now, lease_seconds=lease_seconds)


def _any_waits(pool: Pool) -> bool:
    """Return True if a job that is of no batch waits for room in the pool."""
    return any(
        tenant.is_waiting and tenant.headroom > 0 for tenant in _with_headroom(_active_tenants(pool), lock=False)
    )


def batch_room(*, pool: Pool, load: "PoolLoad") -> int:
    """Return the number of jobs of batches that a pool can run at a time; 0 while another job waits for its room."""
    return 0 if _any_waits(pool) else load.places


def pools_with_waiting_batches() -> list[Pool]:
    """Return the pools in which jobs of batches are queued."""
    queued = Job.objects.filter(state=State.QUEUED, in_batch=True, pool=OuterRef("pk"))
    return list(Pool.objects.filter(Exists(queued)).order_by("pk"))


def _turn_begin(pool: Pool, now: datetime, jobs: _Class) -> "PoolLoad":
    lock = _rows(_TURN_LOCK, pool=pool.pk, idle_max=f"{TURN_IDLE_MS_MAX}ms")
    load: PoolLoad
    _, load = run_pipelined(lock, _pool_load(pool, now, jobs))
    return load


def _release(
    pool: Pool, load: "PoolLoad", jobs: _Class, *, room: int, now: datetime, lease_seconds: int
) -> list[Attempt]:
    room = min(RELEASED_MAX, room)
    if room <= 0:
        return []
    tenants = _with_headroom(_active_tenants(pool, jobs), jobs, lock=True)
    contenders, lifted = _contenders(tenants, load.virtual_time_max)
    before = {contender.tenant_id: contender.virtual_time for contender in contenders}
    full = load.quarantine_is_full
    first = _first_in_turn(contenders, pool=pool, jobs=jobs, room=room, now=now, quarantine_is_full=full, lock=True)
    tenant_of = {job.job_id: contender.tenant_id for contender in first for job in contender.jobs}
    chosen = choose(first, room=room, rate=load.gpu_seconds_per_pixel_step or _RATE_UNMEASURED)
    charges = {contender.tenant_id: contender.virtual_time - before[contender.tenant_id] for contender in first}
    update = _fair_shares_update(pool, jobs, tenants, lifted, charges)
    capped_since = {tenant.tenant_id: tenant.capped_since for tenant in tenants}
    capped = [capped_since[tenant_of[job.job_id]] for job in chosen]
    given = Counter(tenant_of[job.job_id] for job in chosen)
    attempts: list[Attempt]
    _, attempts, *_ = run_pipelined(
        update,
        attempts_insert(chosen, now, lease_seconds, capped_since=capped),
        *_caps_update(pool, jobs, tenants, given, now),
    )
    return attempts


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
    load: "PoolLoad"


def order_read(*, job: Job, now: datetime, jobs_max: int) -> Order:
    """Return the next `jobs_max` jobs that the dispatcher would take from the pool of `job` if its tenant had no cap.

    They are of the class of `job`: of batches, or not. Takes no lock.
    """
    pool, jobs = job.pool, _BATCH if job.in_batch else _URGENT
    load: PoolLoad = run_query(_pool_load(pool, now, jobs))
    tenants = _with_headroom(_active_tenants(pool, jobs), jobs, lock=False)
    headroom = {t.tenant_id: max(0, t.headroom) for t in tenants if t.is_waiting and t.running_max is not None}

    def order(headroom: Mapping[uuid.UUID, int]) -> list[Taken]:
        free = [tenant._replace(headroom=headroom.get(tenant.tenant_id, jobs_max)) for tenant in tenants]
        contenders, _ = _contenders(free, load.virtual_time_max)
        full = load.quarantine_is_full
        first = _first_in_turn(
            contenders, pool=pool, jobs=jobs, room=jobs_max, now=now, quarantine_is_full=full, lock=False
        )
        taken = {one.job_id: Taken(one.job_id, owner.tenant_id, one.work) for owner in first for one in owner.jobs}
        chosen = choose(first, room=jobs_max, rate=load.gpu_seconds_per_pixel_step or _RATE_UNMEASURED)
        return [taken[one.job_id] for one in chosen]

    others = {owner: room for owner, room in headroom.items() if owner != job.tenant_id}
    uncapped = order({})
    return Order(order(others) if others else uncapped, uncapped, headroom, load)


def correct(attempt: Attempt, job: Job, *, measured_seconds: float, work_done: float) -> None:
    """Charge a tenant for an attempt's measured seconds instead of the estimate, and update the pool's rate by them."""
    weight = job.tenant.fair_share_weight
    shares_of(job).objects.filter(pool=job.pool_id, tenant=job.tenant_id).update(
        virtual_time=Greatest(F("virtual_time") + (measured_seconds - attempt.estimated_seconds) / weight, Value(0.0)),
        measured_seconds=F("measured_seconds") * RATE_DECAY + measured_seconds,
        measured_work=F("measured_work") * RATE_DECAY + work_done,
    )


_TURN_LOCK = """
SELECT set_config('idle_in_transaction_session_timeout', %(idle_max)s, true),
    pg_advisory_xact_lock(hashtext('easel dispatch'), %(pool)s)
"""


def _rows(sql: str, **parameters: Any) -> PipelinedQuery[Rows]:
    return (yield Query(sql, parameters))


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
    return run_query(_pool_load(pool, now, _URGENT))


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


def _pool_load(pool: Pool, now: datetime, jobs: _Class) -> PipelinedQuery[PoolLoad]:
    """Return the load of a pool. Jobs of batches wait for all others; the others don't wait for those of batches."""
    silent_since = now - timedelta(seconds=WORKER_SILENCE_SECONDS)
    sql = _POOL_LOAD.format(shares=jobs.shares._meta.db_table)
    [row] = yield from _rows(sql, pool=pool.pk, silent_since=silent_since, in_batch=jobs.in_batch)
    return PoolLoad(*row)


class _Tenant(NamedTuple):
    """A tenant with jobs waiting or running in a pool; it may have `headroom` more jobs running."""

    tenant_id: uuid.UUID
    is_waiting: bool
    is_running: bool
    running_max: int | None
    weight: int
    virtual_time: float | None  # None if the pool has not served it yet
    was_waiting: bool  # at the last turn
    capped_since: datetime | None  # since when it runs as many jobs as it may while others wait
    headroom: int = RELEASED_MAX

    @property
    def is_reference(self) -> bool:
        """True if a returning tenant may be lifted to this tenant's virtual time: it was already active, and it isn't
        waiting merely because of its own cap."""
        was_active = self.is_running or (self.is_waiting and self.was_waiting)
        return self.virtual_time is not None and was_active and (self.headroom > 0 or not self.is_waiting)


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


def _active_tenants(pool: Pool, jobs: _Class = _URGENT) -> list[_Tenant]:
    """Return the tenants with jobs of this class in the pool, waiting or running."""
    sql = _ACTIVE_TENANTS.format(shares=jobs.shares._meta.db_table)
    return [_Tenant(*row) for row in run_query(_rows(sql, pool=pool.pk, in_batch=jobs.in_batch))]


def _with_headroom(tenants: list[_Tenant], jobs: _Class = _URGENT, *, lock: bool) -> list[_Tenant]:
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


def _contenders(tenants: Sequence[_Tenant], virtual_time_max: float) -> tuple[list[Contender], dict[uuid.UUID, float]]:
    """Return the tenants that may run a job, without their jobs; and the virtual times to which returning ones are
    lifted: the least of the active tenants, or `virtual_time_max` if none was active."""
    references = [t.virtual_time for t in tenants if t.is_reference and t.virtual_time is not None]
    level = min(references, default=virtual_time_max)
    contenders, lifted = [], {}
    for tenant in tenants:
        if not tenant.is_waiting:
            continue
        virtual_time = tenant.virtual_time or 0.0
        if not (tenant.is_running or tenant.was_waiting):
            lifted[tenant.tenant_id] = virtual_time = max(virtual_time, level)
        if tenant.headroom > 0:
            contenders.append(Contender(tenant.tenant_id, virtual_time, tenant.weight, [], tenant.headroom))
    return contenders, lifted


def _first_in_turn(
    contenders: Sequence[Contender],
    *,
    pool: Pool,
    jobs: _Class,
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
        query = _rows(
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


# The virtual time is raised by a charge instead of set to a value, because the end of an attempt may correct the same
# row meanwhile.
_FAIR_SHARES_UPDATE = """
WITH changed AS (
    SELECT *
    FROM unnest(%(tenants)s::uuid[], %(levels)s::float8[], %(charges)s::float8[]) AS changed (id, level, charge)
), idle AS (
    UPDATE {shares} SET waiting = false, capped_since = NULL
    WHERE pool_id = %(pool)s AND waiting AND tenant_id <> ALL(%(waiting)s::uuid[])
), inserted AS (
    INSERT INTO {shares} (pool_id, tenant_id, virtual_time, waiting, measured_seconds, measured_work)
    SELECT %(pool)s, id, level + charge, true, 0, 0 FROM changed ON CONFLICT DO NOTHING
)
UPDATE {shares} AS share SET waiting = true, virtual_time = greatest(virtual_time, level) + charge
FROM changed WHERE pool_id = %(pool)s AND tenant_id = changed.id
"""


def _fair_shares_update(
    pool: Pool,
    jobs: _Class,
    tenants: Sequence[_Tenant],
    lifted: dict[uuid.UUID, float],
    charges: dict[uuid.UUID, float],
) -> PipelinedQuery[Rows]:
    waiting = [tenant for tenant in tenants if tenant.is_waiting]
    began_waiting = {tenant.tenant_id for tenant in waiting if not tenant.was_waiting}
    changed = list(began_waiting | {tenant_id for tenant_id, seconds in charges.items() if seconds})
    return _rows(
        _FAIR_SHARES_UPDATE.format(shares=jobs.shares._meta.db_table),
        pool=pool.pk,
        waiting=[tenant.tenant_id for tenant in waiting],
        tenants=changed,
        levels=[lifted.get(tenant_id, 0.0) for tenant_id in changed],
        charges=[charges.get(tenant_id, 0.0) for tenant_id in changed],
    )


_CAPS_UPDATE = """
UPDATE {shares} SET capped_since = CASE WHEN tenant_id = ANY(%(capped)s::uuid[]) THEN %(now)s::timestamptz END
WHERE pool_id = %(pool)s AND tenant_id = ANY(%(changed)s::uuid[])
"""


def _caps_update(
    pool: Pool, jobs: _Class, tenants: Sequence[_Tenant], given: Mapping[uuid.UUID, int], now: datetime
) -> Iterator[PipelinedQuery[Rows]]:
    """Record which tenants this turn leaves without headroom, and which no longer are; no query if none changed.

    `given` is the number of jobs that each tenant was given in this turn.
    """
    capped = {
        tenant.tenant_id
        for tenant in tenants
        if tenant.is_waiting and tenant.running_max is not None and given[tenant.tenant_id] >= tenant.headroom
    }
    changed = [t.tenant_id for t in tenants if (t.tenant_id in capped) != (t.capped_since is not None)]
    if changed:
        sql = _CAPS_UPDATE.format(shares=jobs.shares._meta.db_table)
        yield _rows(sql, pool=pool.pk, capped=list(capped), changed=changed, now=now)


_ATTEMPTS_INSERT = """
WITH chosen AS (
    SELECT * FROM unnest(%(tokens)s::uuid[], %(jobs)s::uuid[], %(seconds)s::float8[], %(capped)s::timestamptz[])
        AS chosen (token, job_id, seconds, capped_since)
), dispatched AS (
    UPDATE jobs_job AS job SET state = 'dispatched' FROM chosen WHERE job.id = chosen.job_id
)
INSERT INTO jobs_attempt (
    token, job_id, number, estimated_seconds, capped_since, dispatched_at, lease_expires_at,
    state, worker, gpu_class, steps_done, previews, gpu_seconds, prompt_tokens, error_code, error_message
)
SELECT token, job_id, 1 + (SELECT count(*) FROM jobs_attempt WHERE job_id = chosen.job_id), seconds, capped_since,
    %(dispatched_at)s, %(lease_expires_at)s, 'live', '', '', 0, '[]', 0, 0, '', ''
FROM chosen RETURNING token, number
"""


def attempts_insert(
    chosen: Sequence[Chosen],
    now: datetime,
    lease_seconds: int,
    *,
    capped_since: Sequence[datetime | None] | None = None,
) -> PipelinedQuery[list[Attempt]]:
    """Give jobs their next attempts, with leases that begin now. `capped_since` has an entry for each of `chosen`."""
    lease = {"dispatched_at": now, "lease_expires_at": now + timedelta(seconds=lease_seconds)}
    attempts = [
        Attempt(token=uuid.uuid4(), job_id=job.job_id, estimated_seconds=job.seconds, **lease) for job in chosen
    ]
    rows = yield from _rows(
        _ATTEMPTS_INSERT,
        tokens=[attempt.token for attempt in attempts],
        jobs=[attempt.job_id for attempt in attempts],
        seconds=[attempt.estimated_seconds for attempt in attempts],
        capped=list(capped_since or [None] * len(attempts)),
        **lease,
    )
    numbers: dict[uuid.UUID, int] = dict(rows)
    for attempt in attempts:
        attempt.number = numbers[attempt.token]
        attempt._state.adding, attempt._state.db = False, connection.alias
    return attempts
