"""Which job runs next: weighted fair queueing between tenants; by priority, then age, within one.

Each tenant has a virtual time per pool: the GPU seconds it was given there, divided by its weight. The waiting tenant
with the least goes next and is charged at once for what its job is thought to take, so a burst of a thousand jobs
makes its own tenant wait and nobody else; when an attempt ends, the estimate makes way for what was measured
(`correct`). A tenant that comes back after a pause starts from the least virtual time of those waiting or running,
since an idle past is no credit to jump ahead with (virtual-time counters, Sheng et al., OSDI 2024).

A turn reads as many jobs as it may release and one row for each waiting tenant, however long the queues are. Whoever
asks an idle system waits for one, so what a turn needs to know and to write goes on four round trips.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby, islice
from typing import NamedTuple

from django.db import connection, transaction
from django.db.models import Count, F, Value
from django.db.models.functions import Greatest

from core.pipeline import (
    PipelinedQuery,
    Query,
    run_pipelined,
    run_query,
)
from easel.catalog.models import Pool
from easel.jobs.models import (
    Attempt,
    FairShare,
    Job,
    State,
)
from tenants.models import Tenant

WORKER_SILENCE_SECONDS = 10  # ten missed beats: no new work for this worker
RELEASED_MAX = 64  # in one turn, so that its lock is short
TURN_IDLE_MS_MAX = 2000  # of a dispatcher that stopped in its turn, until the others go on without it
# GPU seconds of a pixel-step in a pool where nothing was measured: all that counts is that it is the same for all.
_RATE_UNMEASURED = 1e-6
RATE_DECAY = 0.98  # of what was measured before, at each new measurement


_LOCK = """
SELECT set_config('idle_in_transaction_session_timeout', %(patience)s, true),
    pg_advisory_xact_lock(hashtext('easel dispatch'), %(pool)s)
"""


class Waiting(NamedTuple):
    """A job in the queue. `work` is in pixel-steps; one in quarantine runs when no other of those does."""

    job_id: uuid.UUID
    work: float
    quarantined: bool = False


@dataclass(slots=True)
class Contender:
    """A tenant with jobs waiting: its virtual time in seconds, its weight, and its jobs in the order they go."""

    tenant_id: uuid.UUID
    virtual_time: float
    weight: int
    jobs: list[Waiting]


class Chosen(NamedTuple):
    """A job to release, and the GPU seconds that its tenant was charged with."""

    job_id: uuid.UUID
    seconds: float


def choose(contenders: Iterable[Contender], *, room: int, rate: float = 1.0) -> list[Chosen]:
    """The next `room` jobs, in order. Charges each contender's virtual time for what it was given.

    `rate` is the GPU seconds that a unit of work is thought to take.
    """
    waiting = [contender for contender in contenders if contender.jobs]
    chosen: list[Chosen] = []
    while waiting and len(chosen) < room:
        # This line decides which job runs next.
        next_up = min(waiting, key=lambda contender: (contender.virtual_time, contender.tenant_id))
        job = next_up.jobs.pop(0)
        chosen.append(Chosen(job.job_id, job.work * rate))
        next_up.virtual_time += job.work * rate / next_up.weight
        if job.quarantined:
            for contender in waiting:
                contender.jobs = [job for job in contender.jobs if not job.quarantined]
        waiting = [contender for contender in waiting if contender.jobs]
    return chosen


@transaction.atomic
def release(*, pool: Pool, now: datetime, lease_seconds: int) -> list[Attempt]:
    """Gives the pool's free slots to waiting jobs: each gets its next attempt, under a lease.

    Any number of dispatchers may call this at once; the lock on the pool makes them take turns. One that dies in its
    turn releases nothing and frees the lock; from one that hangs PostgreSQL takes it. The caller sends the messages
    after the commit; one that dies before leaves attempts whose leases run out.
    """
    _, stands = run_pipelined(_turn_take(pool), _pool_load(pool, now))
    room = min(RELEASED_MAX, stands.room)
    if room <= 0:
        return []
    present = _under_caps(run_query(_present(pool)))
    contenders, lifted = _contenders(present, stands.virtual_time)
    before = {contender.tenant_id: contender.virtual_time for contender in contenders}
    headroom = {tenant.tenant_id: tenant.headroom for tenant in present}
    queue = _Queue(pool, headroom=headroom, room=room, now=now, quarantine_is_full=stands.quarantine_is_full)
    first = _first(queue, contenders)
    chosen = choose(first, room=room, rate=stands.gpu_seconds_per_pixel_step or _RATE_UNMEASURED)
    charged = {contender.tenant_id: contender.virtual_time - before[contender.tenant_id] for contender in first}
    attempts: list[Attempt]
    _, attempts = run_pipelined(_remember(pool, present, lifted, charged), _dispatched(chosen, now, lease_seconds))
    return attempts


def correct(attempt: Attempt, job: Job, *, measured_seconds: float, work_done: float) -> None:
    """Charges a tenant for what an attempt took instead of what it was thought to take, and learns the pool's rate."""
    weight = job.tenant.fair_share_weight
    FairShare.objects.filter(pool=job.pool_id, tenant=job.tenant_id).update(
        virtual_time=Greatest(F("virtual_time") + (measured_seconds - attempt.estimated_seconds) / weight, Value(0.0)),
        measured_seconds=F("measured_seconds") * RATE_DECAY + measured_seconds,
        measured_work=F("measured_work") * RATE_DECAY + work_done,
    )


def _turn_take(pool: Pool) -> PipelinedQuery[None]:
    yield Query(_LOCK, {"pool": pool.pk, "patience": f"{TURN_IDLE_MS_MAX}ms"})


class PoolLoad(NamedTuple):
    """How a pool stands.

    `room` are those of the workers that beat, less the attempts that the pool has in hand; `virtual_time` is the
    most that it gave to anybody; `rate` the GPU seconds of a pixel-step, of what was measured lately, if anything was.
    """

    room: int
    quarantine_is_full: bool
    virtual_time: float
    gpu_seconds_per_pixel_step: float | None


def pool_load(*, pool: Pool, now: datetime) -> PoolLoad:
    return run_query(_pool_load(pool, now))


_POOL_LOAD = """
SELECT coalesce(alive.slots, 0) - hand.jobs, hand.quarantined, coalesce(share.virtual_time, 0), share.rate
FROM (SELECT sum(concurrency) FROM catalog_worker WHERE pool_id = %(pool)s AND beat_at >= %(alive)s) AS alive (slots)
CROSS JOIN (
    SELECT count(*), coalesce(bool_or(quarantined), false) FROM jobs_job
    WHERE pool_id = %(pool)s AND state IN ('dispatched', 'running')
) AS hand (jobs, quarantined)
CROSS JOIN (
    SELECT max(virtual_time), sum(measured_seconds) / nullif(sum(measured_work), 0)
    FROM jobs_fairshare WHERE pool_id = %(pool)s
) AS share (virtual_time, rate)
"""


def _pool_load(pool: Pool, now: datetime) -> PipelinedQuery[PoolLoad]:
    [row] = yield Query(_POOL_LOAD, {"pool": pool.pk, "alive": now - timedelta(seconds=WORKER_SILENCE_SECONDS)})
    return PoolLoad(*row)


class _Tenant(NamedTuple):
    """A tenant with jobs waiting or running in a pool; `headroom` is how many more it may have running."""

    tenant_id: uuid.UUID
    is_waiting: bool
    is_running: bool
    running_max: int | None
    weight: int
    virtual_time: float | None  # None: the pool has not served it yet
    was_waiting: bool
    headroom: int = RELEASED_MAX

    @property
    def counts(self) -> bool:
        """Whether its virtual time is one that others start from: it was here before, and its own cap isn't why."""
        here = self.is_running or (self.is_waiting and self.was_waiting)
        return self.virtual_time is not None and here and (self.headroom > 0 or not self.is_waiting)


# A step from one tenant to the next in the index of the queue: `DISTINCT` would read all of it.
_PRESENT = """
WITH RECURSIVE waiting (tenant_id) AS (
    (SELECT tenant_id FROM jobs_job WHERE pool_id = %(pool)s AND state = 'queued' ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT tenant_id FROM jobs_job
        WHERE pool_id = %(pool)s AND state = 'queued' AND tenant_id > waiting.tenant_id ORDER BY tenant_id LIMIT 1
    ) FROM waiting WHERE tenant_id IS NOT NULL
), running (tenant_id) AS (
    SELECT DISTINCT tenant_id FROM jobs_job WHERE pool_id = %(pool)s AND state IN ('dispatched', 'running')
)
SELECT tenant.id, waiting.tenant_id IS NOT NULL, running.tenant_id IS NOT NULL,
    tenant.running_jobs_max, tenant.fair_share_weight, share.virtual_time, coalesce(share.waiting, false)
FROM (SELECT tenant_id FROM waiting WHERE tenant_id IS NOT NULL) AS waiting FULL JOIN running USING (tenant_id)
JOIN tenants_tenant AS tenant ON tenant.id = tenant_id
LEFT JOIN jobs_fairshare AS share ON share.tenant_id = tenant.id AND share.pool_id = %(pool)s
"""


def _present(pool: Pool) -> PipelinedQuery[list[_Tenant]]:
    rows = yield Query(_PRESENT, {"pool": pool.pk})
    return [_Tenant(*row) for row in rows]


def _under_caps(present: list[_Tenant]) -> list[_Tenant]:
    """With how many more jobs each tenant with a cap may have running, in all pools together.

    The tenants' rows are locked, so that pools take turns at a tenant and do not each fill its last place.
    """
    caps = {t.tenant_id: t.running_max for t in present if t.is_waiting and t.running_max is not None}
    if not caps:
        return present
    list(Tenant.objects.select_for_update(no_key=True).filter(pk__in=caps).order_by("pk").values_list("pk"))
    pools = list(Pool.objects.values_list("pk", flat=True))  # named, since the index of what runs begins with the pool
    running = Job.objects.filter(pool__in=pools, state__in=(State.DISPATCHED, State.RUNNING), tenant__in=caps)
    counts = dict(running.order_by().values_list("tenant").annotate(count=Count("id")))
    headroom = {tenant_id: cap - counts.get(tenant_id, 0) for tenant_id, cap in caps.items()}
    return [tenant._replace(headroom=headroom.get(tenant.tenant_id, RELEASED_MAX)) for tenant in present]


def _contenders(present: Sequence[_Tenant], most: float) -> tuple[list[Contender], dict[uuid.UUID, float]]:
    """Who may be given a slot, its jobs still to be loaded; and to what virtual time those who came back rise.

    With nobody here to start from, that is `most`, what the pool ever gave.
    """
    level = min((t.virtual_time for t in present if t.counts and t.virtual_time is not None), default=most)
    contenders, lifted = [], {}
    for tenant in present:
        if not tenant.is_waiting:
            continue
        virtual_time = tenant.virtual_time or 0.0
        if not (tenant.is_running or tenant.was_waiting):
            lifted[tenant.tenant_id] = virtual_time = max(virtual_time, level)
        if tenant.headroom > 0:
            contenders.append(Contender(tenant.tenant_id, virtual_time, tenant.weight, []))
    return contenders, lifted


class _Queue(NamedTuple):
    """A pool's waiting jobs, as far as they may go: of each tenant `headroom`, of all together `room`."""

    pool: Pool
    headroom: dict[uuid.UUID, int]
    room: int
    now: datetime
    quarantine_is_full: bool


def _first(queue: _Queue, contenders: Sequence[Contender]) -> list[Contender]:
    """As many as there is room of those with the least virtual time that have a job to give: no other's turn can come.

    One whose jobs are all in another's hands, past their time, or kept back by the quarantine leaves its place.
    """
    by_turn = iter(sorted(contenders, key=lambda contender: (contender.virtual_time, contender.tenant_id)))
    first: list[Contender] = []
    while more := list(islice(by_turn, queue.room - len(first))):
        run_query(_load_jobs(queue, more))
        first += [contender for contender in more if contender.jobs]
    return first


# What a cancellation has locked at this moment is passed over.
_JOBS = """
SELECT headroom.tenant_id, job.id, job.work, job.quarantined
FROM unnest(%(tenants)s::uuid[], %(headroom)s::int[]) AS headroom (tenant_id, jobs)
CROSS JOIN LATERAL (
    SELECT id, width::float8 * height * steps * n AS work, quarantined FROM jobs_job
    WHERE pool_id = %(pool)s AND tenant_id = headroom.tenant_id AND state = 'queued' AND expires_at > %(now)s
        AND NOT (quarantined AND %(quarantine_is_full)s)
    ORDER BY priority DESC, created_at, id LIMIT headroom.jobs
    FOR NO KEY UPDATE SKIP LOCKED
) AS job
"""


def _load_jobs(queue: _Queue, contenders: Sequence[Contender]) -> PipelinedQuery[None]:
    rows = yield Query(
        _JOBS,
        {
            "pool": queue.pool.pk,
            "tenants": [contender.tenant_id for contender in contenders],
            "headroom": [min(queue.room, queue.headroom[contender.tenant_id]) for contender in contenders],
            "now": queue.now,
            "quarantine_is_full": queue.quarantine_is_full,
        },
    )
    jobs = {tenant: [Waiting(*row[1:]) for row in own] for tenant, own in groupby(rows, lambda row: row[0])}
    for contender in contenders:
        contender.jobs = jobs.get(contender.tenant_id, [])


# A step up and not a value: the end of an attempt may correct the same row meanwhile.
_REMEMBER = """
WITH given AS (
    SELECT * FROM unnest(%(tenants)s::uuid[], %(levels)s::float8[], %(charges)s::float8[]) AS given (id, level, charge)
), gone AS (
    UPDATE jobs_fairshare SET waiting = false
    WHERE pool_id = %(pool)s AND waiting AND tenant_id <> ALL(%(waiting)s::uuid[])
), came AS (
    INSERT INTO jobs_fairshare (pool_id, tenant_id, virtual_time, waiting, measured_seconds, measured_work)
    SELECT %(pool)s, id, level + charge, true, 0, 0 FROM given ON CONFLICT DO NOTHING
)
UPDATE jobs_fairshare AS share SET waiting = true, virtual_time = greatest(virtual_time, level) + charge
FROM given WHERE pool_id = %(pool)s AND tenant_id = given.id
"""


def _remember(
    pool: Pool, present: Sequence[_Tenant], lifted: dict[uuid.UUID, float], charged: dict[uuid.UUID, float]
) -> PipelinedQuery[None]:
    waiting = [tenant for tenant in present if tenant.is_waiting]
    came = {tenant.tenant_id for tenant in waiting if not tenant.was_waiting}
    moved = list(came | {tenant_id for tenant_id, seconds in charged.items() if seconds})
    yield Query(
        _REMEMBER,
        {
            "pool": pool.pk,
            "waiting": [tenant.tenant_id for tenant in waiting],
            "tenants": moved,
            "levels": [lifted.get(tenant_id, 0.0) for tenant_id in moved],
            "charges": [charged.get(tenant_id, 0.0) for tenant_id in moved],
        },
    )


@transaction.atomic
def attempts_lease(chosen: Sequence[Chosen], *, now: datetime, lease_seconds: int) -> list[Attempt]:
    """Gives jobs their next attempts, whoever's turn it is."""
    return run_query(_dispatched(chosen, now, lease_seconds))


_DISPATCHED = """
WITH chosen AS (
    SELECT * FROM unnest(%(tokens)s::uuid[], %(jobs)s::uuid[], %(seconds)s::float8[]) AS chosen (token, job_id, seconds)
), dispatched AS (
    UPDATE jobs_job AS job SET state = 'dispatched' FROM chosen WHERE job.id = chosen.job_id
)
INSERT INTO jobs_attempt (
    token, job_id, number, estimated_seconds, dispatched_at, lease_expires_at,
    state, worker, gpu_class, steps_done, previews, gpu_seconds, prompt_tokens, error_code, error_message
)
SELECT token, job_id, 1 + (SELECT count(*) FROM jobs_attempt WHERE job_id = chosen.job_id), seconds,
    %(now)s, %(until)s, 'live', '', '', 0, '[]', 0, 0, '', ''
FROM chosen RETURNING token, number
"""


def _dispatched(chosen: Sequence[Chosen], now: datetime, lease_seconds: int) -> PipelinedQuery[list[Attempt]]:
    attempts = [
        Attempt(
            token=uuid.uuid4(),
            job_id=job.job_id,
            estimated_seconds=job.seconds,
            dispatched_at=now,
            lease_expires_at=now + timedelta(seconds=lease_seconds),
        )
        for job in chosen
    ]
    rows = yield Query(
        _DISPATCHED,
        {
            "tokens": [attempt.token for attempt in attempts],
            "jobs": [attempt.job_id for attempt in attempts],
            "seconds": [attempt.estimated_seconds for attempt in attempts],
            "now": now,
            "until": now + timedelta(seconds=lease_seconds),
        },
    )
    numbers: dict[uuid.UUID, int] = dict(rows)
    for attempt in attempts:
        attempt.number = numbers[attempt.token]
        attempt._state.adding, attempt._state.db = False, connection.alias
    return attempts
