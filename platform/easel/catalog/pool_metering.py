"""Meters dedicated pools: their tenants pay for the time that workers are up, whether busy or idle.

A worker's day (UTC) is metered once it is over, exact to the microsecond. Up time that a late beat adds to a metered
day becomes another usage record. A tenant whose price book has no price for `pool_second` is charged nothing.
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

# A day is metered this long after midnight, when its last beat has arrived.
SETTLING = timedelta(hours=1)
_MICROSECOND = Decimal("1e-6")
_INSTANT = timedelta(microseconds=1)


def pool_days_due(*, now: datetime) -> list[int]:
    """Ids of dedicated pools' worker days that are over and have up time that isn't metered yet."""
    over = WorkerDay.objects.filter(day__lt=_settled(now), up_seconds__gt=F("metered_seconds"))
    return list(over.exclude(pool__tenant=None).order_by("day", "pk").values_list("pk", flat=True))


@transaction.atomic
def pool_day_meter(*, day_id: int, now: datetime) -> bool:
    """Meters the rest of a worker's day and charges it by the prices of the day's end; False if there is none."""
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
    """Return the project that bears a pool's cost: `default`, or else the tenant's first."""
    projects = Project.objects.filter(tenant=tenant).select_related("tenant").order_by("created_at", "pk")
    return projects.filter(slug="default").first() or projects[0]
