"""Publishes prices."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

from django.db import transaction

from billing.models import Meter, PriceBook, Rate


@transaction.atomic
def price_book_publish(
    *,
    currency: str,
    version: int,
    rates: Mapping[tuple[Meter, str], Decimal],
    effective_at: datetime,
    bills_stopped_work: bool = False,
    now: datetime,
) -> PriceBook:
    """Adds a price book that is in force from `effective_at`; a version that is there already stays as it is.

    `rates` is keyed by meter and GPU class ("" for any), in units of the currency per unit of the meter.
    """
    book, created = PriceBook.objects.get_or_create(
        tenant=None,
        currency=currency,
        version=version,
        defaults={"effective_at": effective_at, "bills_stopped_work": bills_stopped_work, "created_at": now},
    )
    if created:
        Rate.objects.bulk_create(
            Rate(price_book=book, meter=meter, gpu_class=gpu_class, unit_price=price)
            for (meter, gpu_class), price in rates.items()
        )
    return book
