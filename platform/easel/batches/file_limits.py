"""Limits of an account's uploaded files: how many, how many bytes in all, and how many uploads in a minute.

Outputs don't count: they are written when they are read. The minute is counted in the rows of files, deleted ones too,
so that it holds without Redis, and in the transaction that adds the next.
"""

from datetime import datetime, timedelta
from math import ceil

from django.db.models import Count, QuerySet, Sum

from easel.batches.errors import FileBytesExceeded, FilesTooMany, UploadsLimited
from easel.batches.models import File
from tenants.models import Tenant
from tenants.quotas import file_limits

_MINUTE = timedelta(minutes=1)


def room_check(*, tenant: Tenant, size_bytes: int, now: datetime) -> None:
    """Refuse a file that an account has no room for. Raises `FileBytesExceeded`, `FilesTooMany`, `UploadsLimited`."""
    limits = file_limits(tenant)
    used = file_use(tenant, now=now)
    files_max, bytes_max = limits["stored_files_max"], limits["stored_bytes_max"]
    if used["stored_files_max"] >= files_max:
        raise FilesTooMany(f"{files_max} uploaded files may be stored, and {used['stored_files_max']} are: delete some")
    if used["stored_bytes_max"] + size_bytes > bytes_max:
        raise FileBytesExceeded(
            f"uploaded files may have {bytes_max} bytes in all, and {used['stored_bytes_max']} are used: this one of"
            f" {size_bytes} has no room"
        )
    if used["uploads_per_minute"] >= limits["uploads_per_minute"]:
        raise _rate_refusal(tenant, per_minute=limits["uploads_per_minute"], now=now)


def file_use(tenant: Tenant, *, now: datetime) -> dict[str, int]:
    """Return what an account uses of each limit of its files, by the limit's name."""
    uploads = _uploads(tenant)
    stored = uploads.filter(deleted_at=None).aggregate(files=Count("pk"), size=Sum("size_bytes", default=0))
    return {
        "stored_files_max": stored["files"],
        "stored_bytes_max": stored["size"],
        "uploads_per_minute": uploads.filter(created_at__gt=now - _MINUTE).count(),
    }


def _uploads(tenant: Tenant) -> QuerySet[File]:
    return File.objects.filter(tenant=tenant, purpose=File.Purpose.BATCH)


def _rate_refusal(tenant: Tenant, *, per_minute: int, now: datetime) -> UploadsLimited:
    if per_minute == 0:  # waiting doesn't help
        return UploadsLimited("no uploads are allowed (your account's limit is 0)", retry_after_seconds=None)
    # Once this one is a minute old, there is room for another.
    hindering = _uploads(tenant).order_by("-created_at").values_list("created_at", flat=True)[per_minute - 1]
    wait_seconds = ceil((hindering + _MINUTE - now).total_seconds())
    return UploadsLimited(
        f"{per_minute} uploads a minute are allowed: try again in {wait_seconds} s", retry_after_seconds=wait_seconds
    )
