"""Stores and deletes the files of batches."""

from codecs import BOM_UTF8
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import IO
from uuid import UUID, uuid4

from django.db import transaction
from django.db.models import Exists, OuterRef

from core.errors import DomainError
from core.text import is_line
from easel.batches.errors import FileInvalid, FileTooLarge
from easel.batches.file_limits import room_check
from easel.batches.models import Batch, File, Line
from easel.storage import store
from tenants.models import Tenant

FILE_BYTES_MAX = 64 * 2**20
FILE_DAYS = 30  # as long as images are retained by default: an output leads to nothing once they are gone
_CHUNK_BYTES = 2**16


def file_add(
    *,
    tenant: Tenant,
    content: IO[bytes],
    size_bytes: int,
    filename: str,
    expires_after_seconds: int | None = None,
    now: datetime,
) -> File:
    """Store the input of batches. Raises `FileInvalid`, `FileTooLarge` and the refusals of `room_check`.

    The object is written before the row: after a crash in between, nothing names it, and it goes with the tenant.
    """
    if not is_line(filename, chars_max=255):
        raise FileInvalid("the file's name must have 1 to 255 printable characters", param="file")
    if not size_bytes:
        raise FileInvalid("the file is empty: it needs a line for each request", param="file")
    if size_bytes > FILE_BYTES_MAX:
        raise FileTooLarge(f"the file has {size_bytes} bytes; the limit is {FILE_BYTES_MAX}", param="file")
    room_check(tenant=tenant, size_bytes=size_bytes, now=now)
    file_id = uuid4()
    key = f"{tenant.slug}/batches/{file_id}.jsonl"
    store().put(key, content, "application/jsonl")
    try:
        with transaction.atomic():
            # Uploads take turns here, so that two can't take the last place. The lock lets the tenant's jobs pass.
            Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
            room_check(tenant=tenant, size_bytes=size_bytes, now=now)
            return File.objects.create(
                id=file_id,
                tenant=tenant,
                purpose=File.Purpose.BATCH,
                filename=filename,
                size_bytes=size_bytes,
                storage_key=key,
                created_at=now,
                expires_at=expiry(now, expires_after_seconds),
            )
    except DomainError:
        store().delete(key)
        raise


def expiry(created_at: datetime, after_seconds: int | None) -> datetime:
    """Return when a file expires: so many seconds after it was made, or by default after `FILE_DAYS`."""
    return created_at + (timedelta(days=FILE_DAYS) if after_seconds is None else timedelta(seconds=after_seconds))


@transaction.atomic
def file_delete(*, file: File, now: datetime) -> None:
    """Delete a file. A batch that was made from it goes on: its lines have been read. Idempotent.

    With a batch's last output its lines go, which nothing else shows.
    """
    file = File.objects.select_for_update().get(pk=file.pk)
    if file.deleted_at is not None:
        return
    if file.storage_key:
        store().delete(file.storage_key)
    file.storage_key, file.deleted_at = "", now
    file.save(update_fields=["storage_key", "deleted_at"])
    batch = Batch.objects.filter(output_file=file).first() or Batch.objects.filter(error_file=file).first()
    if batch is not None:
        outputs = [found for found in (batch.output_file_id, batch.error_file_id) if found is not None]
        if not File.objects.filter(pk__in=outputs, deleted_at=None).exists():
            Line.objects.filter(batch=batch).delete()


def files_expire(*, now: datetime, files_max: int = 100) -> int:
    """Delete files that have expired; return their number, `files_max` at most.

    The input of an unfinished batch stays until the batch has ended.
    """
    unfinished = Batch.objects.filter(input_file=OuterRef("pk"), ended_at=None)
    expired = File.objects.filter(~Exists(unfinished), deleted_at=None, expires_at__lte=now).order_by("expires_at")
    return sum(_expire(file, now) for file in expired[:files_max])


@transaction.atomic
def _expire(file: File, now: datetime) -> bool:
    # The lock waits for a batch that is being made of the file, which the query did not see.
    File.objects.select_for_update().get(pk=file.pk)
    if Batch.objects.filter(input_file=file, ended_at=None).exists():
        return False
    file_delete(file=file, now=now)
    return True


def lines_of(content: IO[bytes], *, bytes_max: int) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file that are not blank, with their numbers from 1, without holding the file in memory.

    A byte order mark at its beginning is left out. Of a line longer than `bytes_max` only its beginning is yielded, one
    byte more than allowed.
    """
    number, line = 1, b""
    chunk = content.read(_CHUNK_BYTES).removeprefix(BOM_UTF8)
    while chunk:
        first, *rest = chunk.split(b"\n")
        line = (line + first)[: bytes_max + 1]
        for following in rest:
            if line.strip():
                yield number, line
            number, line = number + 1, following
        chunk = content.read(_CHUNK_BYTES)
    if line.strip():
        yield number, line[: bytes_max + 1]


def file_id_of(name: str) -> UUID | None:
    """Return the id in `file-<32 hexadecimal digits>`; None for a name that no file has."""
    return _id_of(name, "file-")


def batch_id_of(name: str) -> UUID | None:
    """Return the id in `batch_<32 hexadecimal digits>`; None for a name that no batch has."""
    return _id_of(name, "batch_")


def _id_of(name: str, prefix: str) -> UUID | None:
    digits = name.removeprefix(prefix)
    if digits == name or len(digits) != 32 or not set(digits) <= set("0123456789abcdef"):
        return None
    return UUID(digits)
