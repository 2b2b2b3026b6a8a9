"""Adds charges up by the day, for reports; `billing.models.costs` says why none is left out."""

from datetime import UTC, date, datetime, timedelta

from django.db import connection, transaction
from django.db.models import Max

from billing.usage.models import CostDay

# Until then most of what a day was charged has committed. What comes later adds itself, row by row.
SETTLING = timedelta(hours=1)


def cost_days_due(*, now: datetime) -> list[date]:
    """The days that are over and not sealed, oldest first."""
    newest = CostDay.objects.aggregate(newest=Max("day"))["newest"]
    over = ((now - SETTLING).astimezone(UTC).date() - newest).days
    return [newest + timedelta(days=number) for number in range(1, over)]


@transaction.atomic
def cost_day_seal(*, day: date, now: datetime) -> bool:
    """Adds up the charges of a day; False when that was done before. Raises `ValueError` before the day is over.

    Days are sealed in order.
    """
    if day >= now.astimezone(UTC).date():
        raise ValueError(f"{day} is not over")
    with connection.cursor() as cursor:
        cursor.execute("SELECT billing_seal_day(%s, %s)", [day, now])
        return bool(cursor.fetchone()[0])
