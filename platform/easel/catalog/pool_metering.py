"""Meters dedicated pools: what their tenants pay for the time that workers are up, idle ones too.

A day (UTC) of a worker is metered once it is over, to the microsecond. What is told of it later (a report that waited
for hours) is metered then, as a record of its own. Where nobody prices `pool_second` nothing is charged.
"""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from django.db import transaction
from django.db.models import F

from billing.models import Meter
from billing.pricing.rating import Quantity
from billing.usage.metering import usage_meter
from easel.catalog.models import WorkerDay
from tenants.models import Project, Tenant

# By then the last beat before midnight is here.
SETTLING = timedelta(hours=1)
_MICROSECOND = Decimal("1e-6")
_INSTANT = timedelta(microseconds=1)


def pool_days_due(*, now: datetime) -> list[int]:
    """Days of dedicated pools' workers that are over and not metered, or not to their end."""
    over = WorkerDay.objects.filter(day__lt=_settled(now), up_seconds__gt=F("metered_seconds"))
    return list(over.exclude(pool__tenant=None).order_by("day", "pk").values_list("pk", flat=True))


@transaction.atomic
def pool_day_meter(*, day_id: int, now: datetime) -> bool:
    """Meters what is left of a worker's day, and charges it by the prices of the day's end; False if nothing is."""
    day = WorkerDay.objects.select_for_update(of=("self",)).select_related("pool__tenant").get(pk=day_id)
    metered, up = _exact(day.metered_seconds), _exact(day.up_seconds)
    tenant = day.pool.tenant
    if tenant is None or up <= metered or day.day >= _settled(now):
        return False
    usage_meter(
        project=_project(tenant),
        quantity=Quantity(meter=Meter.POOL_SECOND, amount=up - metered, gpu_class=day.gpu_class),
        dimensions={"pool": day.pool.slug, "worker": day.worker, "gpu_class": day.gpu_class},
        source="worker",
        key=f"pool/{day.pk}/{metered}",
        occurred_at=datetime.combine(day.day + timedelta(days=1), time(), UTC) - _INSTANT,
        description=f"pool {day.pool}, worker {day.worker} on {day.day}"[:200],
        now=now,
    )
    day.metered_seconds = day.up_seconds
    day.save(update_fields=["metered_seconds"])
    return True


def _settled(now: datetime) -> date:
    return (now - SETTLING).astimezone(UTC).date()


def _exact(seconds: float) -> Decimal:
    return Decimal(seconds).quantize(_MICROSECOND)


def _project(tenant: Tenant) -> Project:
    """What a pool's cost belongs to: the project `default`, or the tenant's first."""
    projects = Project.objects.filter(tenant=tenant).select_related("tenant").order_by("created_at", "pk")
    return projects.filter(slug="default").first() or projects[0]
