"""Meters stored objects and charges them by the day.

A day's quantity is the integral over that day (UTC) of the bytes that a project stored, in GB-seconds with the 15
decimal places that bytes times microseconds need: exact, without sampling. Its price is the one in force when the day
ends. A day is metered once it is over, so that no part of an object's life is counted twice or missed.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from django.db.models import F, Q, Value
from django.db.models.functions import Greatest

from billing.money import EXACT
from billing.pricing.models import Meter
from billing.pricing.rating import Quantity
from billing.usage.metering import usage_meter
from billing.usage.models import StorageDay, StoredObject
from tenants.models import Project, Tenant

DAY = timedelta(days=1)
# A transaction that began before midnight may commit after it. By then its objects are visible.
SETTLING = timedelta(hours=1)
INSTANT = timedelta(microseconds=1)


def objects_stored(*, project: Project, kind: StoredObject.Kind, sizes: Mapping[str, int], now: datetime) -> None:
    """Record new objects, as bytes by storage key; a key that is stored already does not change."""
    StoredObject.objects.bulk_create(
        (
            StoredObject(project=project, kind=kind, storage_key=key, size_bytes=size_bytes, created_at=now)
            for key, size_bytes in sizes.items()
        ),
        ignore_conflicts=True,
    )


def objects_deleted(*, storage_keys: Iterable[str], now: datetime) -> int:
    """Record that objects were deleted; return the number. `deleted_at` is never before `created_at`."""
    living = StoredObject.objects.filter(storage_key__in=list(storage_keys), deleted_at=None)
    return living.update(deleted_at=Greatest(Value(now), F("created_at")))


def gb_seconds(objects: Iterable[StoredObject], *, start: datetime, end: datetime) -> Decimal:
    """Return the sum of bytes times lifetime of objects between two instants, in GB-seconds."""
    byte_microseconds = 0
    for stored in objects:
        lived = min(stored.deleted_at or end, end) - max(stored.created_at, start)
        byte_microseconds += stored.size_bytes * max(0, lived // INSTANT)
    return Decimal(byte_microseconds).scaleb(-15, EXACT)


def storage_days_due(*, now: datetime, tenant: Tenant | None = None) -> list[date]:
    """Return the days that are over and not metered yet, oldest first; for a tenant, since its first object."""
    objects = StoredObject.objects.filter(project__tenant=tenant) if tenant else StoredObject.objects.all()
    first = objects.order_by("created_at").values_list("created_at", flat=True).first()
    if first is None:
        return []
    over = ((now - SETTLING).astimezone(UTC).date() - first.astimezone(UTC).date()).days
    days = [first.astimezone(UTC).date() + timedelta(days=number) for number in range(over)]
    metered = set(StorageDay.objects.filter(day__in=days).values_list("day", flat=True))
    return [day for day in days if day not in metered]


def storage_day_meter(*, day: date, now: datetime) -> int:
    """Meter and charge a day for every project, once; return the number of new records, or raise `ValueError`."""
    start = datetime.combine(day, time(), UTC)
    end = start + DAY
    if end + SETTLING > now:
        raise ValueError(f"{day} is not over")
    alive = Q(created_at__lt=end) & (Q(deleted_at__isnull=True) | Q(deleted_at__gt=start))
    stored = StoredObject.objects.filter(alive)
    charged = 0
    for project_id, kind in stored.order_by("project", "kind").values_list("project", "kind").distinct():
        objects = stored.filter(project=project_id, kind=kind).iterator()
        charged += usage_meter(
            project=Project.objects.select_related("tenant").get(pk=project_id),
            quantity=Quantity(meter=Meter.STORAGE_GB_SECOND, amount=gb_seconds(objects, start=start, end=end)),
            dimensions={"kind": kind},
            source="storage",
            key=f"storage/{project_id}/{kind}/{day}",
            # The last instant of the day, so that reports count it on that day.
            occurred_at=end - INSTANT,
            description=f"storage of {kind}s on {day}",
            now=end,
        )
    StorageDay.objects.get_or_create(day=day, defaults={"metered_at": now})
    return charged
