"""Makes jobs of the lines of batches, a few at a time: only as many as an idle pool soon takes.

A line becomes a job as any request does: it is planned, priced, held and counted when its turn comes, at the prices of
batches. A refusal that can pass (`retryable` or `passes_later`, for example spent credit) stops its batch: the batch
shows the reason and tries that line again, ever less often, until it goes on or expires. Any other refusal fails that
line with the refusal's code, and the next line is tried.
"""

import contextlib
import contextvars
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID

import structlog
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Count, Exists, OuterRef, Q, QuerySet

from core.errors import DomainError
from core.revision import revision_begin
from easel.batches.errors import LineDelayed
from easel.batches.lifecycle import counts_update, error_json
from easel.batches.models import Batch, Line
from easel.batches.reading import pool_of, request_of
from easel.catalog.models import Pool
from easel.config import Config
from easel.jobs import queue
from easel.jobs.admission import Admit, job_prepared
from easel.jobs.models import Job, State
from easel.jobs.moderation import PromptUnjudged, verdict_fetch
from tenants.errors import InvalidApiKey, KeyExpired
from tenants.keys import key_check, keys_read
from tenants.models import Scope

log = structlog.get_logger()
LINES_MAX = 64  # per call, so that the ends of jobs are noted and configuration is read again in between
# Jobs of batches that are queued in a pool for each that it can run at a time: enough until the next call.
_QUEUED_PER_PLACE = 2
# A batch waits as long again as it has waited, within these bounds.
RETRY_MIN, RETRY_MAX = timedelta(seconds=5), timedelta(seconds=60)
_RELATED = ("api_key__tenant", "api_key__project")


def lines_feed(*, config: Config, now: datetime) -> int:
    """Make jobs of the next lines of all pools that are idle; return the number of lines that changed.

    `LINES_MAX` of them mean that more may be ready. Several processes may call this at once, and one may stop anywhere:
    a line is locked while it becomes a job, and the job has the line's id.
    """
    # In a context of its own, since configuration is cached by the revision that the context began with.
    return contextvars.copy_context().run(_feed, config, now)


@dataclass(slots=True)
class _Feeding:
    """One call of `lines_feed`: its arguments, and what it has seen of the batches, by their ids."""

    config: Config
    now: datetime
    confirmed: set[UUID] = field(default_factory=set)  # whose key is live
    stopped: set[UUID] = field(default_factory=set)  # whose next line was refused for now
    failed: set[UUID] = field(default_factory=set)  # of which a line failed


def _feed(config: Config, now: datetime) -> int:
    revision_begin()
    this = _Feeding(config, now)
    changed = 0
    tenants: list[Iterator[Line]] = []
    waiting = Line.objects.filter(pool=OuterRef("pk"), state=Line.State.WAITING)
    for pool in Pool.objects.filter(Exists(waiting)).order_by("pk"):
        batches: defaultdict[UUID, list[Batch]] = defaultdict(list)
        for batch in _batches(pool, now):
            batches[batch.tenant_id].append(batch)
        if not batches:
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
        each = max(1, _QUEUED_PER_PLACE * room // len(batches))
        for tenant, own in batches.items():
            tenants.append(_next_lines(pool, own, each - queued.get(tenant, 0), this.stopped))
    for line in islice(_in_turn(tenants), LINES_MAX):
        changed += _try(line, this)
    for batch_id in this.failed:
        counts_update(batch_id)
    return changed


def _batches(pool: Pool, now: datetime) -> QuerySet[Batch]:
    """Return the batches with lines that may become jobs of a pool, the oldest first."""
    waiting = Line.objects.filter(pool=pool, batch=OuterRef("pk"), state=Line.State.WAITING)
    unfinished = Batch.objects.filter(status=Batch.Status.IN_PROGRESS, expires_at__gt=now)
    is_due = Q(retry_at=None) | Q(retry_at__lte=now)
    return unfinished.filter(is_due, Exists(waiting)).select_related(*_RELATED).order_by("created_at", "pk")


def _next_lines(pool: Pool, batches: Iterable[Batch], count: int, stopped: set[UUID]) -> Iterator[Line]:
    """Yield a tenant's next lines, `count` at most, and no more of a batch once it is `stopped`."""
    for batch in batches:
        if count <= 0:
            return
        for line in _waiting_lines(pool, batch)[:count]:
            if batch.pk in stopped:
                break
            line.batch = batch
            count -= 1
            yield line


def _waiting_lines(pool: Pool, batch: Batch) -> QuerySet[Line]:
    return Line.objects.filter(pool=pool, batch=batch, state=Line.State.WAITING).order_by("number")


def _in_turn(tenants: Iterable[Iterator[Line]]) -> Iterator[Line]:
    """Yield a line of each tenant, then the next of each, and so on."""
    waiting = deque(tenants)
    while waiting:
        lines = waiting.popleft()
        if (line := next(lines, None)) is not None:
            yield line
            waiting.append(lines)


def _leave(pool: Pool, config: Config, now: datetime) -> int:
    """Move lines of a pool without a live worker to the pools that would serve them now, if those are others.

    They are chosen at random, so that lines which have to stay don't keep others from leaving.
    """
    moved = 0
    of_batches = {batch.pk: batch for batch in _batches(pool, now)}
    lines = Line.objects.filter(pool=pool, batch__in=of_batches, state=Line.State.WAITING)
    for line in lines.order_by("?")[:LINES_MAX]:
        batch = of_batches[line.batch_id]
        with contextlib.suppress(DomainError):  # which is the line's failure in its turn
            spec = request_of(line.request)
            moved += _move(line, pool_of(spec, batch=batch, line_id=line.pk, config=config, now=now))
    return moved


def _move(line: Line, pool: Pool) -> bool:
    if pool.pk == line.pool_id:
        return False
    return Line.objects.filter(pk=line.pk, state=Line.State.WAITING).update(pool=pool) == 1


def _try(line: Line, this: _Feeding) -> bool:
    """Make the job of a line, fail it, or stop its batch for now; True if the line changed."""
    batch = line.batch
    try:
        if batch.pk not in this.confirmed:
            _key_check(batch, now=this.now)
            this.confirmed.add(batch.pk)
        try:
            changed = line_begin(line, config=this.config, now=this.now)
        except PromptUnjudged as unjudged:
            verdict_fetch(unjudged)
            changed = line_begin(line, config=this.config, now=this.now)
    except (InvalidApiKey, KeyExpired):  # a moment ago: the next `batches_advance` decides what follows
        this.stopped.add(batch.pk)
        return False
    except DomainError as error:
        if error.retryable or error.passes_later:
            _stop(batch, error, this)
            return False
        return _fail(line, error, this)
    except (OperationalError, InterfaceError):  # the database is away, for every line
        raise
    except Exception:
        log.exception("batch_line_not_begun", batch=str(batch), line=line.number)
        _stop(batch, LineDelayed(), this)
        return False
    if changed and batch.waiting_for is not None:
        _set_waiting(batch, None, since=None, retry_at=None)
    return changed


def _key_check(batch: Batch, *, now: datetime) -> None:
    """Raise `InvalidApiKey`, `KeyExpired`, `TenantSuspended` or `ScopeMissing` if the batch's key can't make jobs."""
    key_check(keys_read([batch.api_key_id]).get(batch.api_key_id), now=now, scopes=[Scope.GENERATE])


def line_begin(line: Line, *, config: Config, now: datetime) -> bool:
    """Make the job of a line, in one transaction with the line; return False if somebody else did, or gave it up.

    A line that another pool would serve by now, since its model or its tenant has moved, waits there for its turn: this
    pool's room says nothing of that one's. Raises the refusals of an admission.
    """
    batch = line.batch
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
        live = waits.filter(batch__api_key__revoked_at=None, batch__tenant__suspended_at=None)
        # A query for `exists` would lock every row that it joins, among them the tenant's, which others refer to.
        if not live.values_list("pk"):
            return False
        admit()
        Line.objects.filter(pk=line.pk).update(state=Line.State.BEGUN, job=job, request={})
    return True


def _stop(batch: Batch, error: DomainError, this: _Feeding) -> None:
    """Let a batch wait, and show what for."""
    this.stopped.add(batch.pk)
    since = batch.waiting_since or this.now
    retry_at = this.now + min(max(this.now - since, RETRY_MIN), RETRY_MAX)
    _set_waiting(batch, {"code": error.code, "message": str(error)}, since=since, retry_at=retry_at)
    log.info("batch_waits", batch=str(batch), tenant=batch.tenant_id, code=error.code)


def _set_waiting(
    batch: Batch, reason: dict[str, str] | None, *, since: datetime | None, retry_at: datetime | None
) -> None:
    batch.waiting_for, batch.waiting_since, batch.retry_at = reason, since, retry_at
    batch.save(update_fields=["waiting_for", "waiting_since", "retry_at"])


def _fail(line: Line, error: DomainError, this: _Feeding) -> bool:
    waits = Line.objects.filter(pk=line.pk, state=Line.State.WAITING)
    failed = waits.update(state=Line.State.FAILED, request={}, error=error_json(error), finished_at=this.now) == 1
    if failed:
        this.failed.add(line.batch_id)
    return failed
