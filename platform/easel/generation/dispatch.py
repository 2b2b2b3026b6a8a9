"""Which job runs next: weighted fair queueing between tenants, oldest first within one.

Each tenant has a virtual time per pool: the estimated work it was given there, divided by its weight. The waiting
tenant with the smallest virtual time goes next and is charged for the job at once, so a burst of a thousand jobs
makes its own tenant wait and nobody else. A tenant that comes back after a pause starts from the least virtual
time of those waiting or running, since an idle past is no credit to jump ahead with (virtual-time counters, Sheng
et al., OSDI 2024).
"""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.models import Count, Sum

from easel.generation.models import Attempt, FairShare, Job, State
from easel.registry.models import Pool, Worker
from tenants.models import Tenant

WORKER_SILENCE_SECONDS = 10  # ten missed beats: no new work for this worker


@dataclass(slots=True)
class Contender:
    """A tenant with jobs waiting: its virtual time, its weight, and the work of its jobs, oldest first."""

    tenant_id: uuid.UUID
    virtual_time: float
    weight: int
    jobs: list[tuple[uuid.UUID, int]]


def choose(contenders: Iterable[Contender], *, room: int) -> list[uuid.UUID]:
    """The ids of the next `room` jobs, in order. Charges each contender's virtual time for what it was given."""
    waiting = [contender for contender in contenders if contender.jobs]
    chosen: list[uuid.UUID] = []
    while waiting and len(chosen) < room:
        # This line decides which job runs next.
        next_up = min(waiting, key=lambda contender: (contender.virtual_time, contender.tenant_id))
        job_id, work = next_up.jobs.pop(0)
        next_up.virtual_time += work / next_up.weight
        chosen.append(job_id)
        if not next_up.jobs:
            waiting.remove(next_up)
    return chosen


@transaction.atomic
def release(*, pool: Pool, now: datetime, lease_seconds: int) -> list[Attempt]:
    """Gives the pool's free slots to waiting jobs: each gets its next attempt, under a lease.

    Any number of dispatchers may call this at once; the lock on the pool makes them take turns. The caller sends
    the messages after the commit; one that dies before leaves attempts whose leases run out.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('easel dispatch'), %s)", [pool.pk])
    room = free_slots(pool=pool, now=now)
    if room <= 0:
        return []
    contenders = _contenders(pool, room)
    chosen = choose(contenders, room=room)
    _remember(pool, contenders)
    return attempts_lease(chosen, now=now, lease_seconds=lease_seconds)


def free_slots(*, pool: Pool, now: datetime) -> int:
    """Slots of the workers that beat, less the attempts that the pool has in hand."""
    alive = now - timedelta(seconds=WORKER_SILENCE_SECONDS)
    slots = Worker.objects.filter(pool=pool, beat_at__gte=alive).aggregate(sum=Sum("slots"))["sum"] or 0
    in_hand = Job.objects.filter(pool=pool, state__in=(State.DISPATCHED, State.RUNNING)).count()
    return int(slots) - in_hand


def _contenders(pool: Pool, room: int) -> list[Contender]:
    queued = Job.objects.filter(pool=pool, state=State.QUEUED)
    tenants = list(queued.order_by().values_list("tenant_id", flat=True).distinct())
    weights = dict(Tenant.objects.filter(id__in=tenants).values_list("id", "fair_share_weight"))
    shares = {share.tenant_id: share for share in FairShare.objects.filter(pool=pool)}
    in_hand = Job.objects.filter(pool=pool, state__in=(State.DISPATCHED, State.RUNNING))
    served = set(in_hand.order_by().values_list("tenant_id", flat=True).distinct())
    current = {t: share.virtual_time for t, share in shares.items() if share.waiting or t in served}
    past = {t: share.virtual_time for t, share in shares.items()}
    floor = min(current.values(), default=max(past.values(), default=0.0))
    contenders = []
    for tenant_id in tenants:
        # One more than could be given in this turn, to know whether some stay behind; what a cancellation has
        # locked at this moment is passed over.
        oldest = queued.filter(tenant_id=tenant_id).order_by("created_at", "id")
        jobs = oldest.select_for_update(skip_locked=True, no_key=True)[: room + 1]
        contenders.append(
            Contender(
                tenant_id=tenant_id,
                virtual_time=current.get(tenant_id, max(floor, past.get(tenant_id, 0.0))),
                weight=weights[tenant_id],
                jobs=[(job.id, job.work) for job in jobs],
            )
        )
    return contenders


def _remember(pool: Pool, contenders: list[Contender]) -> None:
    FairShare.objects.filter(pool=pool, waiting=True).exclude(
        tenant_id__in=[contender.tenant_id for contender in contenders]
    ).update(waiting=False)
    FairShare.objects.bulk_create(
        (
            FairShare(pool=pool, tenant_id=c.tenant_id, virtual_time=c.virtual_time, waiting=bool(c.jobs))
            for c in contenders
        ),
        update_conflicts=True,
        unique_fields=["pool", "tenant"],
        update_fields=["virtual_time", "waiting"],
    )


def attempts_lease(job_ids: list[uuid.UUID], *, now: datetime, lease_seconds: int) -> list[Attempt]:
    numbers: Mapping[uuid.UUID, int] = dict(
        Job.objects.filter(id__in=job_ids).annotate(made=Count("attempts")).values_list("id", "made")
    )
    Job.objects.filter(id__in=job_ids).update(state=State.DISPATCHED)
    return Attempt.objects.bulk_create(
        Attempt(
            token=uuid.uuid4(),
            job_id=job_id,
            number=numbers[job_id] + 1,
            dispatched_at=now,
            lease_expires_at=now + timedelta(seconds=lease_seconds),
        )
        for job_id in job_ids
    )
