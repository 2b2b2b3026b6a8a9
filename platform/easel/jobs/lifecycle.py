"""Every change of a job after its admission: its workers beat and finish it, or it is canceled, expires or is lost.

Each function is one transaction. It locks the job first and its attempt second, everywhere in this order.

Reports of workers arrive at least once, late, and in any order. A report names its attempt by token, and only a live
attempt can change its job. A second copy of a report, or a report of an attempt whose lease has expired, is recognised
by that and dropped; the GPU seconds of such an attempt are recorded as wasted. What the worker of a dedicated pool says
is put right first (`evidence.py`).
"""

import contextlib
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import Case, F, JSONField, PositiveIntegerField, Q, QuerySet, Value, When
from django.db.models.functions import Coalesce, Greatest
from redis.exceptions import RedisError

from billing.ledger.holds import hold_void
from billing.models import Meter
from billing.pricing.rating import Prices, Quantity
from billing.usage.settlement import settle
from core.image_units import image_units
from easel.catalog.models import Pool
from easel.catalog.workers import worker_seen
from easel.jobs import dispatch, transport
from easel.jobs.dimensions import dimensions_of, names_of
from easel.jobs.errors import WorkerStopped
from easel.jobs.evidence import end_confirmed, is_believed, progress_confirmed
from easel.jobs.models import Attempt, Job, State
from easel.jobs.notices import job_notify
from easel.jobs.outputs import output_of, outputs_record
from easel.jobs.phases import phases_read
from easel.jobs.result_cache import result_remember
from easel.jobs.storage_keys import output_key
from inference.contract import AttemptFinished, WorkerBeat
from tenants.quotas import units_return

log = structlog.get_logger()
NANO = Decimal("1e-9")
# A job that was running when this many workers died is quarantined: it may have caused the crashes. So may any job that
# ran beside it, so it does not fail yet: it gets its last attempt while no other quarantined job runs.
QUARANTINE_LOSSES = 2
STOPS_MAX = 20  # planned stops of workers that a batch's job survives


class Applied(Enum):
    """The effect of a report that an attempt has ended."""

    SETTLED = "settled"
    REQUEUED = "requeued"
    LATE = "late"
    UNKNOWN = "unknown"


def beat(*, pool: Pool, report: WorkerBeat, now: datetime, lease_seconds: int) -> list[UUID]:
    """Record a worker's beat, extend the leases of the attempts that it names, and mark their jobs running.

    Returns the tokens of the attempts that the worker must stop: those whose lease has expired meanwhile, and those
    whose job was canceled (Redis may have lost the first request to stop).
    """
    worker_seen(pool=pool, report=report, now=now)
    progress = {UUID(attempt.attempt_token): attempt for attempt in report.attempts}
    if not progress:
        return []
    # Only attempts of this pool: the worker of a dedicated pool must not change those of another pool.
    named = Attempt.objects.filter(token__in=progress, job__pool=pool)
    live = named.filter(state=Attempt.State.LIVE)
    lease: Any = Value(now + timedelta(seconds=lease_seconds))
    if not is_believed(pool):
        progress, leases = progress_confirmed(pool, progress, now, lease_seconds=lease_seconds)
        if not progress:
            return _unwanted(named)
        live = live.filter(token__in=progress)
        lease = Case(*(When(token=token, then=Value(until)) for token, until in leases.items()), default=lease)
    with transaction.atomic():
        # Every function that locks several jobs locks them in order of id, so that no two deadlock.
        started = Job.objects.filter(attempts__in=live, state=State.DISPATCHED).order_by("id")
        ids = list(started.select_for_update(of=("self",)).values_list("id", flat=True))
        Job.objects.filter(id__in=ids, state=State.DISPATCHED).update(state=State.RUNNING)
        steps = Case(
            *(When(token=token, then=Value(attempt.steps_done)) for token, attempt in progress.items()),
            output_field=PositiveIntegerField(),
        )
        live.update(
            # A consumer that was paused may apply an old beat after newer ones: no value may decrease.
            lease_expires_at=Greatest("lease_expires_at", lease),
            worker=report.worker,
            started_at=Coalesce("started_at", Value(now)),
            steps_done=Greatest("steps_done", steps),
            previews=Case(
                *(When(token=token, then=Value(attempt.previews, JSONField())) for token, attempt in progress.items()),
                output_field=JSONField(),
            ),
            phases=Case(
                *(
                    When(token=token, steps_done__lte=attempt.steps_done, then=Value(phases, JSONField()))
                    for token, attempt in progress.items()
                    if (phases := phases_read(attempt.phases))
                ),
                default=F("phases"),
                output_field=JSONField(),
            ),
        )
    return _unwanted(named)


def _unwanted(named: QuerySet[Attempt]) -> list[UUID]:
    unwanted = Q(state=Attempt.State.LOST) | Q(state=Attempt.State.LIVE, job__cancel_requested_at__isnull=False)
    return list(named.filter(unwanted).values_list("token", flat=True))


@transaction.atomic
def finish(*, pool: Pool, report: AttemptFinished, now: datetime, attempts_max: int) -> Applied:
    """End an attempt as its worker reports: job state, outputs, usage, charge and hold in one transaction.

    Raises `ValueError` for a success that lacks an image; then nothing is written.
    """
    token = UUID(report.attempt_token)
    job = Job.objects.select_for_update(of=("self",)).filter(attempts__token=token, pool=pool).first()
    if job is None:
        return Applied.UNKNOWN
    attempt = Attempt.objects.select_for_update().get(token=token)
    is_wasted = attempt.state == Attempt.State.LOST and not attempt.gpu_seconds
    if not is_believed(pool) and (is_wasted or attempt.state == Attempt.State.LIVE):
        report = end_confirmed(pool, job, attempt, report, now)
    if attempt.state != Attempt.State.LIVE:
        if is_wasted:
            attempt.gpu_seconds = _gpu_seconds(report)  # wasted: the tenant is not charged for it
            attempt.worker, attempt.gpu_class = report.worker, report.gpu_class
            attempt.save(update_fields=["gpu_seconds", "worker", "gpu_class"])
        return Applied.LATE
    attempt.state = Attempt.State(report.outcome)
    attempt.worker, attempt.gpu_class = report.worker, report.gpu_class
    attempt.started_at = attempt.started_at or now
    attempt.finished_at = now
    attempt.gpu_seconds = _gpu_seconds(report)
    attempt.prompt_tokens = report.prompt_tokens
    attempt.phases = phases_read(report.phases) or attempt.phases
    attempt.error_code, attempt.error_message = report.error_code, report.error_message[:2000]
    attempt.steps_done = job.steps * job.n if report.outcome == "succeeded" else report.steps_done
    if report.outcome == "succeeded" and not job.partial_images:
        attempt.swept_at = now  # it stored nothing but the job's images
    attempt.save()
    if report.outcome == "succeeded":
        applied = _succeed(job, report, now)
    elif report.outcome == "failed":
        applied = _fail(job, attempt, report.retryable, now, attempts_max)
    else:
        applied = _stop(job, State(report.outcome), report, now)
    work = job.width * job.height * attempt.steps_done
    dispatch.correct(attempt, job, measured_seconds=report.gpu_seconds, work_done=work)
    return applied


@transaction.atomic
def lose(*, token: UUID, now: datetime, attempts_max: int) -> bool:
    """Give up an attempt whose lease has expired; return False if a beat or its end came first."""
    job = Job.objects.select_for_update(of=("self",)).get(attempts__token=token)
    attempt = Attempt.objects.select_for_update().get(token=token)
    if attempt.state != Attempt.State.LIVE or attempt.lease_expires_at > now:
        return False
    attempt.state, attempt.finished_at = Attempt.State.LOST, now
    attempt.error_code, attempt.error_message = "worker_lost", "the worker stopped reporting"
    attempt.save()
    if attempt.started_at is None:  # no worker began it, so its tenant gets back the virtual time of this turn
        dispatch.correct(attempt, job, measured_seconds=0, work_done=0)
    _fail(job, attempt, True, now, attempts_max)
    return True


@transaction.atomic
def cancel(*, job: Job, now: datetime) -> Job:
    """Cancel a queued job at once; ask the worker of a dispatched or running one to stop. A finished job stays."""
    job = Job.objects.select_for_update(of=("self",)).get(id=job.id)
    if job.state == State.QUEUED:
        _end(job, State.CANCELED, now)
    elif job.finished_at is None:
        if job.cancel_requested_at is None:
            job.cancel_requested_at = now
            job.save(update_fields=["cancel_requested_at"])
        live = job.attempts.filter(state=Attempt.State.LIVE)
        pool, tokens = job.pool, [str(token) for token in live.values_list("token", flat=True)]

        def ask_to_stop() -> None:
            # Without Redis the request stands: `beat` repeats it, and the job of a lost attempt ends canceled.
            with contextlib.suppress(RedisError):
                transport.ask_to_cancel(pool, tokens, now=now)

        transaction.on_commit(ask_to_stop)
    return job


@transaction.atomic
def expire(*, job_id: UUID, now: datetime) -> bool:
    """End a job that no worker took before its `expires_at`; return False if one did."""
    job = Job.objects.select_for_update(of=("self",)).get(id=job_id)
    if job.state != State.QUEUED or job.expires_at > now:
        return False
    _end(job, State.EXPIRED, now, "job_expired", "no worker took the job before it expired")
    return True


def _succeed(job: Job, report: AttemptFinished, now: datetime) -> Applied:
    if sorted(output.index for output in report.outputs) != list(range(job.n)):
        raise ValueError(f"the report has {len(report.outputs)} outputs, and job {job.id} has {job.n} images")
    token = UUID(report.attempt_token)
    outputs = [output_of(job, image, output_key(job, token, image.index)) for image in report.outputs]
    outputs_record(job, outputs, now=now)
    request = Quantity(meter=Meter.REQUEST, amount=Decimal(1))
    charged = _charge(job, report, _prices(job), _image_units(job), request, now=now)
    job.state, job.finished_at = State.SUCCEEDED, now
    job.save(update_fields=["state", "finished_at"])
    result_remember(job, now=now)
    job_notify(job, now=now)
    log.info("job_succeeded", **names_of(job), cost_micros=charged, gpu_seconds=report.gpu_seconds)
    return Applied.SETTLED


def _stop(job: Job, state: State, report: AttemptFinished, now: datetime) -> Applied:
    """End a job that its worker stopped; charge for the steps that were done if the price book says so."""
    if report.steps_done and (prices := _prices(job)).bills_stopped_work:
        share = Decimal(min(report.steps_done, job.steps * job.n)) / (job.steps * job.n)
        _charge(job, report, prices, (_image_units(job) * share).quantize(NANO), now=now)
    if state == State.EXPIRED:
        return _end(job, state, now, "job_expired", "the job expired before its images were generated")
    return _end(job, state, now)


def _fail(job: Job, attempt: Attempt, retryable: bool, now: datetime, attempts_max: int) -> Applied:
    """Return a job to the queue if another attempt may succeed; else fail it with the error of this attempt."""
    if job.cancel_requested_at is not None:
        return _end(job, State.CANCELED, now)
    # An attempt that no worker began does not count: Redis lost its message, and the job did not fail.
    begun = job.attempts.exclude(started_at=None)
    if job.in_batch:  # it is given up at every planned stop of a worker, and its batch's deadline is its limit
        stops = begun.filter(error_code=WorkerStopped.code).count()
        attempts_max += min(stops, STOPS_MAX)
    if not retryable or begun.count() >= attempts_max:
        code, message = attempt.error_code or "internal_error", attempt.error_message
        if job.quarantined and attempt.state == Attempt.State.LOST:
            code, message = "job_quarantined", "every worker that ran this job stopped reporting"
        return _end(job, State.FAILED, now, code, message)
    lost = job.attempts.filter(state=Attempt.State.LOST).exclude(started_at=None).count()
    job.state, job.quarantined = State.QUEUED, lost >= QUARANTINE_LOSSES
    job.save(update_fields=["state", "quarantined"])
    log.warning("job_requeued", **names_of(job), attempt=attempt.number, error_code=attempt.error_code)
    return Applied.REQUEUED


def _end(job: Job, state: State, now: datetime, error_code: str = "", error_message: str = "") -> Applied:
    """End a job without images. Its whole hold is released, unless `_stop` has charged for its steps."""
    hold_void(tenant=job.tenant, reference=job.id, now=now)
    units_return(api_key=job.api_key, image_units=_image_units(job), taken_at=job.created_at)
    job.state, job.finished_at = state, now
    job.error_code, job.error_message = error_code, error_message
    job.save(update_fields=["state", "finished_at", "error_code", "error_message"])
    job_notify(job, now=now)
    log.info(f"job_{state}", **names_of(job), error_code=error_code)
    return Applied.SETTLED


def _charge(job: Job, report: AttemptFinished, prices: Prices, units: Decimal, *more: Quantity, now: datetime) -> int:
    """Settle a job's hold with the measured GPU seconds, image units and `more`; return the micro-units charged."""
    gpu_seconds = Quantity(meter=Meter.GPU_SECOND, amount=_gpu_seconds(report), gpu_class=report.gpu_class)
    quantities = (gpu_seconds, Quantity(meter=Meter.IMAGE_UNIT, amount=units), *more)
    dimensions = dimensions_of(job)
    return settle(
        project=job.project, job_id=job.id, quantities=quantities, dimensions=dimensions, prices=prices, now=now
    )


def _prices(job: Job) -> Prices:
    """Return the prices at admission, which were quoted: a price that changed since then holds for later requests."""
    return Prices.in_force(tenant=job.tenant, now=job.created_at, in_batch=job.in_batch)


def _image_units(job: Job) -> Decimal:
    return image_units(width=job.width, height=job.height, n=job.n)


def _gpu_seconds(report: AttemptFinished) -> Decimal:
    return Decimal(report.gpu_seconds).quantize(NANO)
