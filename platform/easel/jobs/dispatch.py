"""Releases the waiting jobs of a pool: a dispatcher's turn, which gives them attempts under leases.

`release` fills the pool's free room: `choose` takes the next jobs by weighted fair queueing (`fair_queueing.py`), and
each gets its next attempt. `release_batch` fills what is idle with jobs of batches; workers give those only the time in
which they have nothing else to do. When an attempt ends, `correct` charges the measured seconds.

A request to an idle system waits for one whole turn, so a turn takes only four round trips and its commit, and three
more if a waiting tenant has a cap on running jobs.
"""

import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.models import F, Value
from django.db.models.functions import Greatest

from core.locks import lock_query
from core.pipeline import PipelinedQuery, Rows, query_rows, run_pipelined
from easel.catalog.models import Pool
from easel.jobs.fair_queueing import RATE_UNMEASURED, RELEASED_MAX, ActiveTenant, Chosen, choose, contenders_of
from easel.jobs.models import Attempt, Job, shares_of
from easel.jobs.queue import (
    BATCH,
    URGENT,
    JobClass,
    PoolLoad,
    active_tenants,
    any_waits,
    first_in_turn,
    pool_load_query,
    with_headroom,
)

TURN_IDLE_MS_MAX = 2000  # PostgreSQL ends the turn of a dispatcher that hangs for so long, and others go on
RATE_DECAY = 0.98  # exponential decay per finished attempt


@transaction.atomic
def release(*, pool: Pool, now: datetime, lease_seconds: int) -> list[Attempt]:
    """Fill a pool's free room with waiting jobs; return their attempts, which the caller sends after the commit.

    Any number of dispatchers may call this at once: a lock per pool makes them take turns.
    """
    load = _turn_begin(pool, now, URGENT)
    return _release(pool, load, URGENT, room=load.room, now=now, lease_seconds=lease_seconds)


@transaction.atomic
def release_batch(*, pool: Pool, now: datetime, lease_seconds: int) -> list[Attempt]:
    """Fill what is idle of a pool with jobs of batches; return their attempts, as `release` does.

    It releases none while another job waits for room in the pool. A job that waits only because of its tenant's own cap
    on running jobs doesn't count: a batch takes nothing from it.
    """
    load = _turn_begin(pool, now, BATCH)
    if load.room <= 0 or any_waits(pool):
        return []
    return _release(pool, load, BATCH, room=load.room, now=now, lease_seconds=lease_seconds)


_TURN_IDLE = "SELECT set_config('idle_in_transaction_session_timeout', %(idle_max)s, true)"


def _turn_begin(pool: Pool, now: datetime, jobs: JobClass) -> PoolLoad:
    idle = query_rows(_TURN_IDLE, idle_max=f"{TURN_IDLE_MS_MAX}ms")
    load: PoolLoad
    _, _, load = run_pipelined(idle, lock_query(f"dispatch {pool.pk}"), pool_load_query(pool, now, jobs))
    return load


def _release(
    pool: Pool, load: PoolLoad, jobs: JobClass, *, room: int, now: datetime, lease_seconds: int
) -> list[Attempt]:
    room = min(RELEASED_MAX, room)
    if room <= 0:
        return []
    tenants = with_headroom(active_tenants(pool, jobs), jobs, lock=True)
    contenders, lifted = contenders_of(tenants, load.virtual_time_max)
    before = {contender.tenant_id: contender.virtual_time for contender in contenders}
    full = load.quarantine_is_full
    first = first_in_turn(contenders, pool=pool, jobs=jobs, room=room, now=now, quarantine_is_full=full, lock=True)
    tenant_of = {job.job_id: contender.tenant_id for contender in first for job in contender.jobs}
    chosen = choose(first, room=room, rate=load.gpu_seconds_per_pixel_step or RATE_UNMEASURED)
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


def correct(attempt: Attempt, job: Job, *, measured_seconds: float, work_done: float) -> None:
    """Charge a tenant for an attempt's measured seconds instead of the estimate, and update the pool's rate by them."""
    weight = job.tenant.fair_share_weight
    shares_of(job).objects.filter(pool=job.pool_id, tenant=job.tenant_id).update(
        virtual_time=Greatest(F("virtual_time") + (measured_seconds - attempt.estimated_seconds) / weight, Value(0.0)),
        measured_seconds=F("measured_seconds") * RATE_DECAY + measured_seconds,
        measured_work=F("measured_work") * RATE_DECAY + work_done,
    )


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
    jobs: JobClass,
    tenants: Sequence[ActiveTenant],
    lifted: dict[uuid.UUID, float],
    charges: dict[uuid.UUID, float],
) -> PipelinedQuery[Rows]:
    waiting = [tenant for tenant in tenants if tenant.is_waiting]
    began_waiting = {tenant.tenant_id for tenant in waiting if not tenant.was_waiting}
    changed = list(began_waiting | {tenant_id for tenant_id, seconds in charges.items() if seconds})
    return query_rows(
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
    pool: Pool, jobs: JobClass, tenants: Sequence[ActiveTenant], given: Mapping[uuid.UUID, int], now: datetime
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
        yield query_rows(sql, pool=pool.pk, capped=list(capped), changed=changed, now=now)


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
    rows = yield from query_rows(
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
