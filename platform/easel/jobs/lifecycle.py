"""Applies what workers report: beats extend leases, an attempt's end settles its job, once.

Reports arrive at least once, late, and in any order. The attempt's token says which attempt is meant; only a live
attempt can change anything, so the second copy of a report, or one of an attempt whose lease was lost, is
recognised and dropped; what the latter took is kept as wasted. Lock order everywhere: the job, then its attempt.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import Case, JSONField, PositiveIntegerField, Q, Value, When
from django.db.models.functions import Coalesce, Greatest

from billing.ledger.holds import hold_void
from billing.models import Meter
from billing.pricing.rating import Prices, Quantity
from billing.usage.settlement import settle
from core.image_units import image_units
from easel.catalog.models import Pool
from easel.catalog.workers import worker_seen
from easel.jobs import queue
from easel.jobs.dimensions import dimensions_of, names_of
from easel.jobs.models import (
    Attempt,
    Job,
    Output,
    State,
)
from easel.jobs.notices import job_notify
from easel.jobs.outputs import outputs_record
from easel.jobs.result_cache import result_remember
from easel.jobs.storage_keys import output_key
from inference.contract import AttemptFinished, WorkerBeat
from tenants.quotas import units_return

log = structlog.get_logger()
NANO = Decimal("1e-9")
# Workers that stopped while they drew a job until it is suspected to be why. Its neighbours are too, so it isn't failed
# but has its last attempt while no other suspect runs.
QUARANTINE_LOSSES = 2


class Applied(Enum):
    """What became of a report of an attempt's end."""

    SETTLED = "settled"
    REQUEUED = "requeued"
    LATE = "late"
    UNKNOWN = "unknown"


def beat(*, pool: Pool, report: WorkerBeat, now: datetime, lease_seconds: int) -> list[UUID]:
    """Records a worker's beat, extends the leases of the attempts it names, and marks their jobs running.

    Returns the tokens of those that nobody waits for any more, for the worker to be told: their lease was lost while
    it was away, or their job was canceled, of which Redis may have lost the word.
    """
    worker_seen(pool=pool, report=report, now=now)
    progress = {UUID(attempt.attempt_token): attempt for attempt in report.attempts}
    if not progress:
        return []
    # Of this pool alone: a dedicated pool's worker has no say in another pool's attempts.
    named = Attempt.objects.filter(token__in=progress, job__pool=pool)
    live = named.filter(state=Attempt.State.LIVE)
    with transaction.atomic():
        # In order of id, as every writer of several jobs locks them.
        started = Job.objects.filter(attempts__in=live, state=State.DISPATCHED).order_by("id")
        ids = list(started.select_for_update(of=("self",)).values_list("id", flat=True))
        Job.objects.filter(id__in=ids, state=State.DISPATCHED).update(state=State.RUNNING)
        steps = Case(
            *(When(token=token, then=Value(now_at.steps_done)) for token, now_at in progress.items()),
            output_field=PositiveIntegerField(),
        )
        live.update(
            # A consumer that was paused applies an old beat after newer ones: nothing goes back.
            lease_expires_at=Greatest("lease_expires_at", Value(now + timedelta(seconds=lease_seconds))),
            worker=report.worker,
            started_at=Coalesce("started_at", Value(now)),
            steps_done=Greatest("steps_done", steps),
            previews=Case(
                *(When(token=token, then=Value(now_at.previews, JSONField())) for token, now_at in progress.items()),
                output_field=JSONField(),
            ),
        )
    unwanted = Q(state=Attempt.State.LOST) | Q(state=Attempt.State.LIVE, job__cancel_requested_at__isnull=False)
    return list(named.filter(unwanted).values_list("token", flat=True))


@transaction.atomic
def finish(*, pool: Pool, report: AttemptFinished, now: datetime, attempts_max: int) -> Applied:
    """Ends an attempt as its worker reports: job state, outputs, usage, charge and hold in one transaction.

    Raises `ValueError` for a success that lacks an image, and then nothing is written.
    """
    token = UUID(report.attempt_token)
    job = Job.objects.select_for_update(of=("self",)).filter(attempts__token=token, pool=pool).first()
    if job is None:
        return Applied.UNKNOWN
    attempt = Attempt.objects.select_for_update().get(token=token)
    if attempt.state != Attempt.State.LIVE:
        if attempt.state == Attempt.State.LOST and not attempt.gpu_seconds:
            attempt.gpu_seconds = _seconds(report)  # wasted time, of the pool and not of the tenant
            attempt.worker, attempt.gpu_class = report.worker, report.gpu_class
            attempt.save(update_fields=["gpu_seconds", "worker", "gpu_class"])
        return Applied.LATE
    attempt.state = Attempt.State(report.outcome)
    attempt.worker, attempt.gpu_class = report.worker, report.gpu_class
    attempt.started_at = attempt.started_at or now
    attempt.finished_at = now
    attempt.gpu_seconds = _seconds(report)
    attempt.prompt_tokens = report.prompt_tokens
    attempt.error_code, attempt.error_message = report.error_code, report.error_message[:2000]
    attempt.steps_done = job.steps * job.n if report.outcome == "succeeded" else report.steps_done
    if report.outcome == "succeeded" and not job.partial_images:
        attempt.swept_at = now  # all that it stored are the job's images
    attempt.save()
    endings: dict[str, Callable[[], Applied]] = {
        "succeeded": lambda: _succeed(job, report, now),
        "canceled": lambda: _stop(job, State.CANCELED, report, now),
        "expired": lambda: _stop(job, State.EXPIRED, report, now),
        "failed": lambda: _fail(job, attempt, report.retryable, now, attempts_max),
    }
    applied = endings[report.outcome]()
    work = job.width * job.height * attempt.steps_done
    queue.correct(attempt, job, measured_seconds=report.gpu_seconds, work_done=work)
    return applied


@transaction.atomic
def lose(*, token: UUID, now: datetime, attempts_max: int) -> bool:
    """Takes a job back from an attempt whose lease has run out; False if it beat or ended meanwhile."""
    job = Job.objects.select_for_update(of=("self",)).get(attempts__token=token)
    attempt = Attempt.objects.select_for_update().get(token=token)
    if attempt.state != Attempt.State.LIVE or attempt.lease_expires_at > now:
        return False
    attempt.state, attempt.finished_at = Attempt.State.LOST, now
    attempt.error_code, attempt.error_message = "worker_lost", "the worker stopped reporting"
    attempt.save()
    if attempt.started_at is None:  # its message was lost: the tenant had nothing for its turn
        queue.correct(attempt, job, measured_seconds=0, work_done=0)
    _fail(job, attempt, True, now, attempts_max)
    return True


@transaction.atomic
def cancel(*, job: Job, now: datetime) -> Job:
    """Asks for a job to end: a waiting one is canceled at once, one in a worker's hands when that stops.

    A finished job stays as it is. The caller tells the worker, after the commit.
    """
    job = Job.objects.select_for_update(of=("self",)).get(id=job.id)
    if job.state == State.QUEUED:
        _end(job, State.CANCELED, now)
    elif job.finished_at is None and job.cancel_requested_at is None:
        job.cancel_requested_at = now
        job.save(update_fields=["cancel_requested_at"])
    return job


@transaction.atomic
def expire(*, job_id: UUID, now: datetime) -> bool:
    """Ends a job that no worker took before its `expires_at`; False when one did."""
    job = Job.objects.select_for_update(of=("self",)).get(id=job_id)
    if job.state != State.QUEUED or job.expires_at > now:
        return False
    _end(job, State.EXPIRED, now, "job_expired", "no worker took the job before it expired")
    return True


def _succeed(job: Job, report: AttemptFinished, now: datetime) -> Applied:
    if sorted(output.index for output in report.outputs) != list(range(job.n)):
        raise ValueError(f"{len(report.outputs)} outputs are not the {job.n} images of job {job.id}")
    outputs = [
        Output(
            job=job,
            index=output.index,
            seed=output.seed,
            storage_key=output_key(job, UUID(report.attempt_token), output.index),
            sha256=output.sha256,
            size_bytes=output.size_bytes,
        )
        for output in report.outputs
    ]
    outputs_record(job, outputs, now=now)
    units = image_units(width=job.width, height=job.height, n=len(report.outputs))
    quantities = (
        Quantity(meter=Meter.GPU_SECOND, amount=_seconds(report), gpu_class=report.gpu_class),
        Quantity(meter=Meter.IMAGE_UNIT, amount=units),
        Quantity(meter=Meter.REQUEST, amount=Decimal(1)),
    )
    # The prices of the quote: a price that changed meanwhile is for later requests.
    prices = Prices.at(tenant=job.tenant, now=job.created_at)
    charged = settle(
        project=job.project,
        job_id=job.id,
        quantities=quantities,
        dimensions=dimensions_of(job),
        prices=prices,
        now=now,
    )
    job.state, job.finished_at = State.SUCCEEDED, now
    job.save(update_fields=["state", "finished_at"])
    result_remember(job, now=now)
    job_notify(job, now=now)
    log.info("job_succeeded", **names_of(job), cost_micros=charged, gpu_seconds=report.gpu_seconds)
    return Applied.SETTLED


def _stop(job: Job, state: State, report: AttemptFinished, now: datetime) -> Applied:
    """Ends a job that its worker gave up half-way; it pays for the steps it took if the price book says so."""
    prices = Prices.at(tenant=job.tenant, now=job.created_at) if report.steps_done else None
    if prices and prices.bills_stopped_work:
        units = image_units(width=job.width, height=job.height, n=job.n)
        share = Decimal(min(report.steps_done, job.steps * job.n)) / (job.steps * job.n)
        settle(
            project=job.project,
            job_id=job.id,
            quantities=(
                Quantity(meter=Meter.GPU_SECOND, amount=_seconds(report), gpu_class=report.gpu_class),
                Quantity(meter=Meter.IMAGE_UNIT, amount=(units * share).quantize(NANO)),
            ),
            dimensions=dimensions_of(job),
            prices=prices,
            now=now,
        )
    expired = ("job_expired", "the job expired before it was drawn") if state == State.EXPIRED else ("", "")
    return _end(job, state, now, *expired)


def _fail(job: Job, attempt: Attempt, retryable: bool, now: datetime, attempts_max: int) -> Applied:
    """Back to the queue while another attempt may help, else failed with the attempt's cause."""
    if job.cancel_requested_at is not None:
        return _end(job, State.CANCELED, now)
    # An attempt that no worker began (Redis lost its message) says nothing against the job.
    begun = job.attempts.exclude(started_at=None).count()
    if not retryable or begun >= attempts_max:
        code, message = attempt.error_code or "internal_error", attempt.error_message
        if job.quarantined and attempt.state == Attempt.State.LOST:
            code, message = "job_quarantined", "every worker that drew this job stopped reporting"
        return _end(job, State.FAILED, now, code, message)
    lost = job.attempts.filter(state=Attempt.State.LOST).exclude(started_at=None).count()
    job.state, job.quarantined = State.QUEUED, lost >= QUARANTINE_LOSSES
    job.save(update_fields=["state", "quarantined"])
    log.warning("job_requeued", **names_of(job), attempt=attempt.number, error_code=attempt.error_code)
    return Applied.REQUEUED


def _end(job: Job, state: State, now: datetime, error_code: str = "", error_message: str = "") -> Applied:
    """Ends a job that made nothing: its hold goes back whole, unless it was charged for what it did."""
    hold_void(tenant=job.tenant, reference=job.id, now=now)
    units = image_units(width=job.width, height=job.height, n=job.n)
    units_return(api_key=job.api_key, image_units=units, taken_at=job.created_at)
    job.state, job.finished_at = state, now
    job.error_code, job.error_message = error_code, error_message
    job.save(update_fields=["state", "finished_at", "error_code", "error_message"])
    job_notify(job, now=now)
    log.info(f"job_{state}", **names_of(job), error_code=error_code)
    return Applied.SETTLED


def _seconds(report: AttemptFinished) -> Decimal:
    return Decimal(report.gpu_seconds).quantize(NANO)
