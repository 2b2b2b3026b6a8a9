"""Reads of files and batches; another tenant's are not found."""

from datetime import datetime, timedelta

from django.db.models import Exists, OuterRef, QuerySet

from core.errors import text_of
from core.pages import page_after
from easel.batches.errors import BatchNotFound, FileNotFound, WorkerMissing
from easel.batches.files import batch_id_of, file_id_of
from easel.batches.models import Batch, File, Line
from easel.catalog.models import Pool, Worker
from easel.catalog.workers import WORKER_SILENCE_SECONDS
from tenants.models import Tenant


def file_get(*, tenant: Tenant, name: str, param: str = "file_id") -> File:
    """Find a file that is not deleted by its name, `file-…`, which `param` held. Raises `FileNotFound`."""
    file_id = file_id_of(name)
    found = File.objects.filter(tenant=tenant, pk=file_id, deleted_at=None).first() if file_id else None
    if found is None:
        raise FileNotFound(f"there is no file {name!r}", param=param)
    return found


def files_page(
    *, tenant: Tenant, limit: int, after: str | None, purpose: str | None = None, order: str = "desc"
) -> tuple[list[File], bool]:
    """Return files that are not deleted, newest first unless `order` is "asc", and True if more follow.

    Raises `FileNotFound` for an unknown `after`.
    """
    last = None if after is None else file_get(tenant=tenant, name=after, param="after")
    files = File.objects.filter(tenant=tenant, deleted_at=None)
    if purpose is not None:
        files = files.filter(purpose=purpose)
    sign = "" if order == "asc" else "-"
    return page_after(files, order=(f"{sign}created_at", f"{sign}id"), after=last, limit=limit)


def batch_get(*, tenant: Tenant, name: str, now: datetime) -> Batch:
    """Find a tenant's batch by its name, `batch_…`. Raises `BatchNotFound`."""
    return _named(name, _batches(now).filter(tenant=tenant))


def batch_named(name: str) -> Batch:
    """Find any tenant's batch by its name, for operators. Raises `BatchNotFound`."""
    return _named(name, Batch.objects.select_related("tenant"))


def _named(name: str, among: QuerySet[Batch], *, param: str = "batch_id") -> Batch:
    batch_id = batch_id_of(name)
    found = among.filter(pk=batch_id).first() if batch_id else None
    if found is None:
        raise BatchNotFound(f"there is no batch {name!r}", param=param)
    return found


def batches_page(*, tenant: Tenant, limit: int, after: str | None, now: datetime) -> tuple[list[Batch], bool]:
    """Return batches, newest first, and True if more follow. Raises `BatchNotFound` for an unknown `after`."""
    batches = _batches(now).filter(tenant=tenant)
    last = None if after is None else _named(after, batches, param="after")
    return page_after(batches, order=("-created_at", "-id"), after=last, limit=limit)


def ended_lines(file: File) -> QuerySet[Line]:
    """Return the lines that an output file or an error file shows, in the order of the batch's input."""
    if batch := Batch.objects.filter(output_file=file).first():
        return Line.objects.filter(batch=batch, state=Line.State.SUCCEEDED).order_by("number")
    return Line.objects.filter(batch__error_file=file, state=Line.State.FAILED).order_by("number")


def waiting_for(batch: Batch) -> dict[str, str] | None:
    """Return what the next line of a batch waits for, as code and message; None if it only waits for room in a pool.

    The batch comes from one of the reads above.
    """
    if batch.status != Batch.Status.IN_PROGRESS:
        return None
    found: dict[str, str] | None = batch.waiting_for
    if found is None and batch.lacks_worker:  # type: ignore[attr-defined]
        found = {"code": WorkerMissing.code, "message": text_of(WorkerMissing)}
    return found


def _batches(now: datetime) -> QuerySet[Batch]:
    silent_since = now - timedelta(seconds=WORKER_SILENCE_SECONDS)
    live = Worker.objects.filter(pool=OuterRef("pk"), beat_at__gte=silent_since, concurrency__gt=0)
    # By pool, so that PostgreSQL looks up one line of each pool instead of reading all lines of the batch.
    waiting = Line.objects.filter(pool=OuterRef("pk"), batch=OuterRef(OuterRef("pk")), state=Line.State.WAITING)
    lacks_worker = Exists(Pool.objects.filter(~Exists(live), Exists(waiting)))
    found = Batch.objects.select_related("tenant", "input_file", "output_file", "error_file")
    return found.annotate(lacks_worker=lacks_worker)
