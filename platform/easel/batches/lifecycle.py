"""Makes batches, cancels them, and ends them."""

import json
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import structlog
from django.db import connection, transaction
from django.db.models import Count, Exists, OuterRef, Q

from core.errors import DomainError
from core.text import text_escaped
from easel.batches.errors import BatchCancelled, BatchExpired, FileInvalid, FileNotFound, WindowInvalid
from easel.batches.files import expiry
from easel.batches.models import Batch, File, Line
from easel.batches.notices import batch_notify
from easel.batches.reading import Fault, ReadBody, lines_read
from easel.config import Config
from easel.jobs import lifecycle as jobs_lifecycle
from easel.jobs.models import Job, State
from easel.storage import store
from tenants.errors import InvalidApiKey, KeyExpired
from tenants.keys import key_in_force
from tenants.models import ApiKey

log = structlog.get_logger()
WINDOW_HOURS_MAX = 7 * 24
_INSERTED = 500  # lines per query


def window_hours(text: str) -> int:
    """Return the hours of a completion window such as `24h`. Raises `WindowInvalid`."""
    found = re.fullmatch(r"([1-9][0-9]{0,2})h", text)
    if found is None or int(found[1]) > WINDOW_HOURS_MAX:
        raise WindowInvalid(
            f"completion_window must be 24h, or another whole number of hours from 1h to {WINDOW_HOURS_MAX}h",
            param="completion_window",
        )
    return int(found[1])


def batch_prepare(
    *,
    api_key: ApiKey,
    input_file: File,
    endpoint: str,
    hours: int,
    metadata: dict[str, str],
    output_seconds: int | None = None,
    read_body: ReadBody,
    config: Config,
    now: datetime,
) -> tuple[Batch, list[Line]]:
    """Read a file, and return its batch with its lines, not yet written: `batch_write` does that in a transaction.

    A file with a fault makes a batch that has failed, with the faults of all its lines and without lines. Raises
    `FileInvalid`, `FileNotFound`.
    """
    if input_file.purpose != File.Purpose.BATCH:
        raise FileInvalid(f"{input_file} is the output of a batch", param="input_file_id")
    if input_file.expires_at <= now:  # it is deleted soon
        raise FileNotFound(f"{input_file} has expired", param="input_file_id")
    batch = Batch(
        id=uuid4(),
        tenant=api_key.tenant,
        api_key=api_key,
        input_file=input_file,
        endpoint=endpoint,
        window_hours=hours,
        metadata=metadata,
        output_seconds=output_seconds,
        status=Batch.Status.IN_PROGRESS,
        created_at=now,
        expires_at=now + timedelta(hours=hours),
    )
    try:
        content = store().open(input_file.storage_key)
    except FileNotFoundError as error:  # deleted since the file was looked up
        raise FileNotFound(param="input_file_id") from error
    with content:
        lines, faults = lines_read(batch, content, read_body=read_body, config=config, now=now)
    if faults:
        batch.status, batch.ended_at, batch.faults = Batch.Status.FAILED, now, [_stored(fault) for fault in faults]
        return batch, []
    batch.lines_total = len(lines)
    return batch, lines


def batch_write(batch: Batch, lines: Iterable[Line], *, now: datetime) -> UUID:
    """Write a prepared batch in the caller's transaction; return its id."""
    batch.save(force_insert=True)
    Line.objects.bulk_create(lines, batch_size=_INSERTED)
    if batch.ended_at is not None:
        batch_notify(batch, now=now)
    log.info("batch_created", batch=str(batch), tenant=batch.tenant.slug, status=batch.status, lines=batch.lines_total)
    return batch.id


@transaction.atomic
def batch_cancel(*, batch: Batch, now: datetime) -> Batch:
    """Cancel what workers have not begun of a batch; what they have begun goes on. A batch that has ended stays."""
    batch = Batch.objects.select_for_update().get(pk=batch.pk)
    if batch.status == Batch.Status.IN_PROGRESS:
        batch.status, batch.cancelling_at = Batch.Status.CANCELLING, now
        batch.save(update_fields=["status", "cancelling_at"])
    return batch


def batches_advance(*, now: datetime) -> int:
    """Take note of what has ended, cancel and expire lines, and end batches; return the number of changes.

    Each step is a conditional update, so that any number of processes may call this at once, and again after a crash.
    """
    changed = _ended_record(now) + _keys_follow(now)
    for batch in Batch.objects.filter(ended_at=None).order_by("created_at"):
        if batch.status == Batch.Status.CANCELLING:
            changed += _lines_give_up(batch, BatchCancelled(), now)
            queued = Job.objects.filter(pk__in=Line.objects.filter(batch=batch, state=Line.State.BEGUN).values("job"))
            for job in queued.filter(state=State.QUEUED).select_related("pool"):
                jobs_lifecycle.cancel(job=job, now=now)
                changed += 1
        elif batch.expires_at <= now:
            changed += _lines_give_up(batch, BatchExpired(), now)
    if changed:
        _ended_record(now)
    for batch_id in _worked_off():
        changed += _end(batch_id, now)
    return changed


def _keys_follow(now: datetime) -> int:
    """Let the batches of a rotated key go on under its successor; fail the lines that a revoked or expired key left."""
    changed = 0
    over = Q(api_key__revoked_at__isnull=False) | Q(api_key__expires_at__lte=now)
    for batch in Batch.objects.filter(over, status=Batch.Status.IN_PROGRESS).select_related("api_key"):
        key = key_in_force(batch.api_key)
        if key is None:
            changed += _lines_give_up(batch, InvalidApiKey("the API key that made this batch was revoked"), now)
        elif key.expires_at is not None and key.expires_at <= now:
            changed += _lines_give_up(batch, KeyExpired("the API key that made this batch has expired"), now)
        else:
            Batch.objects.filter(pk=batch.pk).update(api_key=key)
            changed += 1
    return changed


# Jobs that ended since the last call. One that expired, or was canceled with its batch, says so in the batch's words;
# any other failure is the job's to tell.
_ENDED = """
UPDATE batches_line AS line
SET state = CASE job.state WHEN 'succeeded' THEN 'succeeded' ELSE 'failed' END,
    finished_at = job.finished_at,
    error = CASE
        WHEN job.state = 'expired' THEN %(expired)s::jsonb
        WHEN job.state = 'canceled' AND batch.status = 'cancelling' THEN %(cancelled)s::jsonb
    END
FROM jobs_job AS job, batches_batch AS batch
WHERE line.state = 'begun' AND job.id = line.job_id AND job.finished_at IS NOT NULL AND batch.id = line.batch_id
RETURNING line.batch_id
"""


def _ended_record(now: datetime) -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_ENDED, {"expired": _json(BatchExpired()), "cancelled": _json(BatchCancelled())})
        ended = [batch_id for (batch_id,) in cursor.fetchall()]
    for batch_id in set(ended):
        counts_update(batch_id)
    return len(ended)


def counts_update(batch_id: UUID) -> None:
    """Count the lines of a batch that have ended, in its row, from which the API shows them."""
    with transaction.atomic():
        batch = Batch.objects.select_for_update().get(pk=batch_id)
        states = Line.objects.filter(batch=batch).aggregate(
            completed=Count("pk", filter=Q(state=Line.State.SUCCEEDED)),
            failed=Count("pk", filter=Q(state=Line.State.FAILED)),
        )
        batch.lines_completed, batch.lines_failed = states["completed"], states["failed"]
        batch.save(update_fields=["lines_completed", "lines_failed"])


def _lines_give_up(batch: Batch, error: DomainError, now: datetime) -> int:
    """Fail the lines that have no job yet. They were never held, so nothing is charged or returned."""
    waiting = Line.objects.filter(batch=batch, state=Line.State.WAITING)
    given_up = waiting.update(state=Line.State.FAILED, request={}, error=error_json(error), finished_at=now)
    if given_up:
        counts_update(batch.pk)
    return given_up


def _worked_off() -> list[UUID]:
    """Return the unfinished batches of which no line is left."""
    left = Line.objects.filter(batch=OuterRef("pk"), finished_at=None)
    return list(Batch.objects.filter(~Exists(left), ended_at=None).values_list("pk", flat=True))


@transaction.atomic
def _end(batch_id: UUID, now: datetime) -> int:
    """End a batch all of whose lines have ended, with files that lead to their results; return 0 if it has ended."""
    batch = Batch.objects.select_for_update().select_related("tenant").get(pk=batch_id)
    lines = Line.objects.filter(batch=batch)
    if batch.ended_at is not None or lines.filter(finished_at=None).exists():
        return 0
    batch.lines_completed = lines.filter(state=Line.State.SUCCEEDED).count()
    batch.lines_failed = batch.lines_total - batch.lines_completed
    if batch.lines_completed:
        batch.output_file = _output(batch, "output", now)
    if batch.lines_failed:
        batch.error_file = _output(batch, "error", now)
    if batch.status == Batch.Status.CANCELLING:
        batch.status = Batch.Status.CANCELLED
    elif lines.filter(error__code=BatchExpired.code).exists():
        batch.status = Batch.Status.EXPIRED
    else:
        batch.status = Batch.Status.COMPLETED
    batch.ended_at = now
    batch.save()
    batch_notify(batch, now=now)
    log.info("batch_ended", batch=str(batch), tenant=batch.tenant.slug, status=batch.status)
    return 1


def _output(batch: Batch, kind: str, now: datetime) -> File:
    return File.objects.create(
        tenant=batch.tenant,
        purpose=File.Purpose.BATCH_OUTPUT,
        filename=f"{batch}_{kind}.jsonl",
        created_at=now,
        expires_at=expiry(now, batch.output_seconds),
    )


def error_json(error: DomainError) -> dict[str, Any]:
    """Return a refusal as a line stores it."""
    return {
        "status": error.http_status,
        "type": error.type,
        "code": error.code,
        "message": str(error),
        "param": error.param,
    }


def _json(error: DomainError) -> str:
    return json.dumps(error_json(error))


def _stored(fault: Fault) -> dict[str, Any]:
    """Return a fault as its batch stores it: a line may name a field by characters that PostgreSQL can't store."""
    param = None if fault.param is None else text_escaped(fault.param)[:200]
    return {**fault._asdict(), "message": text_escaped(fault.message)[:1000], "param": param}
