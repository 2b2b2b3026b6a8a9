"""Sums charges by the day for reports; `CostDay` says why none is missed."""

from datetime import UTC, date, datetime, timedelta

from django.db import connection, transaction
from django.db.models import Max

from billing.usage.models import CostDay

# By then most charges of a day have committed. Later ones add themselves, row by row.
SETTLING = timedelta(hours=1)


def cost_days_due(*, now: datetime) -> list[date]:
    """Return the days that are over and not sealed, oldest first."""
    newest = CostDay.objects.aggregate(newest=Max("day"))["newest"]
    over = ((now - SETTLING).astimezone(UTC).date() - newest).days
    return [newest + timedelta(days=number) for number in range(1, over)]


@transaction.atomic
def cost_day_seal(*, day: date, now: datetime) -> bool:
    """Sum the charges of a day, in order; False if done before. Raises `ValueError` before the day is over."""
    if day >= now.astimezone(UTC).date():
        raise ValueError(f"{day} is not over")
    with connection.cursor() as cursor:
        cursor.execute("SELECT billing_seal_day(%s, %s)", [day, now])
        return bool(cursor.fetchone()[0])
