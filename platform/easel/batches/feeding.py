"""Makes jobs of the lines of batches, a few at a time: only as many as an idle pool soon takes.

A line becomes a job as any request does: it is planned, priced, held and counted when its turn comes, at the prices of
batches. What refuses it then, for example spent credit, fails this line with the refusal's code, and the next line is
tried: each failure is in the batch's error file. Where a refusal says that a retry can help, and while the tenant is
suspended, lines wait instead, until the batch expires.
"""

import contextlib
import contextvars
from datetime import datetime
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import Count, Exists, OuterRef, QuerySet

from core.errors import DomainError
from core.revision import revision_begin
from easel.batches.lifecycle import counts_update, error_json
from easel.batches.models import Batch, Line
from easel.batches.reading import pool_of, request_of
from easel.catalog.models import Pool
from easel.config import Config
from easel.jobs import queue
from easel.jobs.admission import Admit, job_prepared
from easel.jobs.models import Job, State
from tenants.errors import ScopeMissing, TenantSuspended
from tenants.keys import key_confirm
from tenants.models import Scope

log = structlog.get_logger()
LINES_MAX = 64  # per call, so that the scheduler's other tasks wait briefly
# Jobs of batches that are queued in a pool for each that it can run at a time: enough until the next call.
_QUEUED_PER_PLACE = 2
_RELATED = ("batch__api_key__tenant", "batch__api_key__project")


def lines_feed(*, config: Config, now: datetime) -> int:
    """Make jobs of the next lines of all pools that are idle; return the number of lines that changed.

    Several processes may call this at once, and one may stop anywhere: a line is locked while it becomes a job, and the
    job has the line's id.
    """
    # In a context of its own, since configuration is cached by the revision that the context began with.
    return contextvars.copy_context().run(_feed, config, now)


def _feed(config: Config, now: datetime) -> int:
    revision_begin()
    changed = 0
    waiting = Line.objects.filter(pool=OuterRef("pk"), state=Line.State.WAITING)
    for pool in Pool.objects.filter(Exists(waiting)).order_by("pk"):
        tenants = list(_lines(pool, now).order_by("batch__tenant").values_list("batch__tenant", flat=True).distinct())
        if not tenants:
            continue
        load = queue.pool_load(pool=pool, now=now)
        if not load.places:
            changed += _leave(pool, config, now)
            continue
        if not (room := queue.batch_room(pool=pool, load=load)):
            continue
        of_tenant = Job.objects.filter(pool=pool, state=State.QUEUED, in_batch=True).order_by().values_list("tenant")
        queued = dict(of_tenant.annotate(Count("pk")))
        # The same for every tenant: their turns are decided by the queue, which sees a line only once it is a job.
        each = max(1, _QUEUED_PER_PLACE * room // len(tenants))
        for tenant in tenants:
            count = min(each - queued.get(tenant, 0), LINES_MAX - changed)
            if count > 0:
                changed += _feed_tenant(pool, tenant, count, config, now)
    return changed


def _lines(pool: Pool, now: datetime) -> QuerySet[Line]:
    """Return the lines that may become jobs of a pool."""
    unfinished = {"batch__status": Batch.Status.IN_PROGRESS, "batch__expires_at__gt": now}
    return Line.objects.filter(pool=pool, state=Line.State.WAITING, **unfinished)


def _leave(pool: Pool, config: Config, now: datetime) -> int:
    """Move lines of a pool without a live worker to the pools that would serve them now, if those are others.

    They are chosen at random, so that lines which have to stay don't keep others from leaving.
    """
    moved = 0
    for line in _lines(pool, now).select_related(*_RELATED).order_by("?")[:LINES_MAX]:
        with contextlib.suppress(DomainError):  # which is the line's failure in its turn
            spec = request_of(line.request)
            moved += _move(line, pool_of(spec, batch=line.batch, line_id=line.pk, config=config, now=now))
    return moved


def _move(line: Line, pool: Pool) -> bool:
    if pool.pk == line.pool_id:
        return False
    return Line.objects.filter(pk=line.pk, state=Line.State.WAITING).update(pool=pool) == 1


def _feed_tenant(pool: Pool, tenant: UUID, count: int, config: Config, now: datetime) -> int:
    lines = _lines(pool, now).filter(batch__tenant=tenant).select_related(*_RELATED)
    changed = 0
    for line in lines.order_by("batch__created_at", "batch", "number")[:count]:
        try:
            changed += line_begin(line, config=config, now=now)
        except DomainError as error:
            if error.retryable or isinstance(error, TenantSuspended):
                log.info("batch_line_waits", batch=str(line.batch), line=line.number, code=error.code)
                break  # the tenant's next line would be refused as well
            changed += _fail(line, error, now)
    return changed


def line_begin(line: Line, *, config: Config, now: datetime) -> bool:
    """Make the job of a line, in one transaction with the line; return False if somebody else did, or gave it up.

    A line that another pool would serve by now, since its model or its tenant has moved, waits there for its turn: this
    pool's room says nothing of that one's. Raises the refusals of an admission.
    """
    batch = line.batch
    key_confirm(batch.api_key)
    if Scope.GENERATE not in batch.api_key.scopes:
        raise ScopeMissing(f"this API key lacks the scope {Scope.GENERATE.value!r}")
    prepared = job_prepared(
        api_key=batch.api_key,
        spec=request_of(line.request),
        config=config,
        job_id=line.id,
        request_id=str(batch),
        batch_until=batch.expires_at,
        now=now,
    )
    with prepared as (job, admit):
        if _move(line, job.pool):
            return False
        return _begin(line, job, admit)


def _begin(line: Line, job: Job, admit: Admit) -> bool:
    with transaction.atomic():
        locked = Line.objects.select_for_update(of=("self",), skip_locked=True)
        waits = locked.filter(pk=line.pk, state=Line.State.WAITING, batch__status=Batch.Status.IN_PROGRESS)
        if not waits.exists():
            return False
        admit()
        Line.objects.filter(pk=line.pk).update(state=Line.State.BEGUN, job=job, request={})
    return True


def _fail(line: Line, error: DomainError, now: datetime) -> int:
    waits = Line.objects.filter(pk=line.pk, state=Line.State.WAITING)
    failed = waits.update(state=Line.State.FAILED, request={}, error=error_json(error), finished_at=now)
    if failed:
        counts_update(line.batch_id)
    return failed
