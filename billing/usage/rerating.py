"""Rates charges again, only from usage records and price books, and finds differences.

An amount is recomputed from the record's quantity and the charge's rate, `used_before` and `discount`. Rate, contract
and discount are looked up again by the record's dimensions and the prices of its time: for a job, those of its
admission, which is the time of its hold. Waivers have no price and are not rated again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import islice
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from billing.ledger.models import Transaction
from billing.pricing.models import Meter
from billing.pricing.rating import Prices, Quantity, Tariff, contracts, lists
from billing.usage.models import Charge
from tenants.models import Tenant

_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Difference:
    """A field of a charge that rating again makes different."""

    charge_id: UUID
    what: str
    charged: Any
    rated: Any

    def __str__(self) -> str:
        return f"charge {self.charge_id} has {self.what} {self.charged}, but rated again {self.rated}"


def charges_between(*, tenant: Tenant, start: datetime | None, end: datetime | None) -> QuerySet[Charge]:
    """Return a tenant's charges that were written from `start` until just before `end`."""
    charges = Charge.objects.filter(usage_record__tenant=tenant).order_by("created_at", "pk")
    charges = charges.filter(created_at__gte=start) if start else charges
    return charges.filter(created_at__lt=end) if end else charges


def rerated(charges: QuerySet[Charge]) -> Iterator[Difference]:
    """Find the differences in any number of charges, in constant memory."""
    lists_of, contracts_of, tariff_of = cache(lists), cache(contracts), cache(Tariff.of)
    related = charges.select_related("usage_record__tenant", "rate__price_book__tenant")
    rows = related.iterator(chunk_size=_BATCH)
    while batch := list(islice(rows, _BATCH)):
        jobs = {charge.usage_record.job_id for charge in batch if charge.usage_record.job_id is not None}
        holds = Transaction.objects.filter(kind=Transaction.Kind.HOLD, reference__in=jobs)
        admitted = dict(holds.values_list("reference", "created_at"))
        for charge in batch:
            record = charge.usage_record
            if charge.kind != Charge.Kind.WAIVER:
                tariff = tariff_of(charge.rate)
                rate = tariff.micros if charge.kind == Charge.Kind.USAGE else tariff.correction_micros
                amount = rate(record.quantity, used_before=charge.used_before, discount=charge.discount)
                if amount != charge.amount_micros:
                    yield Difference(charge.pk, "amount_micros", charge.amount_micros, amount)
            if charge.kind == Charge.Kind.USAGE:
                now = admitted.get(record.job_id, record.occurred_at) if record.job_id else record.occurred_at
                books, agreed = lists_of(charge.currency), contracts_of(record.tenant_id)
                in_batch = record.dimensions.get("batch") == "yes"
                prices = Prices.among(books, agreed, currency=charge.currency, now=now, in_batch=in_batch)
                yield from _terms(charge, prices)


def _terms(charge: Charge, prices: Prices) -> Iterator[Difference]:
    record = charge.usage_record
    named = {name: str(record.dimensions.get(name, "")) for name in ("gpu_class", "model", "tier")}
    tariff = prices.tariff(Quantity(meter=Meter(record.meter), amount=record.quantity, **named))
    for what, charged, rated in (
        ("rate", charge.rate_id, tariff.rate_id if tariff else None),
        ("contract", charge.contract_id, prices.contract_id),
        ("discount", charge.discount, prices.discount),
    ):
        if charged != rated:
            yield Difference(charge.pk, what, charged, rated)
