"""Settles a job's hold: usage records, their charges and the ledger's post, together or not at all."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from django.db import transaction

from billing import ledger
from billing.models import Charge, UsageRecord
from billing.rating import Prices, Quantity, RatedLine
from tenants.models import Project


@transaction.atomic
def settle(
    *,
    project: Project,
    job_id: UUID,
    quantities: Sequence[Quantity],
    dimensions: Mapping[str, str],
    prices: Prices,
    at: datetime,
) -> int:
    """Charges a job from what was measured; returns the micro-units charged.

    A tenant never pays more than was held, which was the quote: what goes over is let off by `cap` charges on the
    first usage records. Repeated, it does nothing and returns what was charged the first time.
    """
    lines = prices.rate(quantities)
    let_off = _caps([line.amount_micros for line in lines], most=ledger.held_micros(job_id))
    amounts: dict[str, int] = {}
    for line, cap in zip(lines, let_off, strict=True):
        meter = line.quantity.meter
        amounts[meter] = amounts.get(meter, 0) + line.amount_micros - cap
    posted = ledger.post(tenant=project.tenant, amounts=amounts, reference=job_id, at=at)
    if posted is None:
        return charged_micros(job_id)
    records = [
        UsageRecord(
            id=uuid.uuid4(),
            idempotency_key=f"job/{job_id}/{line.quantity.meter}",
            tenant_id=project.tenant_id,
            project=project,
            job_id=job_id,
            meter=line.quantity.meter,
            quantity=line.quantity.amount,
            dimensions={**dimensions, "gpu_class": line.quantity.gpu_class},
            occurred_at=at,
        )
        for line in lines
    ]
    UsageRecord.objects.bulk_create(records)

    def charge(record: UsageRecord, line: RatedLine, kind: Charge.Kind, amount_micros: int) -> Charge:
        return Charge(
            usage_record=record,
            transaction=posted,
            kind=kind,
            rate_id=line.rate_id,
            amount_micros=amount_micros,
            currency=prices.currency,
            created_at=at,
        )

    rated = list(zip(records, lines, let_off, strict=True))
    charges = [charge(record, line, Charge.Kind.USAGE, line.amount_micros) for record, line, _ in rated]
    charges += [charge(record, line, Charge.Kind.CAP, -cap) for record, line, cap in rated if cap]
    Charge.objects.bulk_create(charges)
    return sum(amounts.values())


def _caps(amounts: Sequence[int], *, most: int) -> list[int]:
    """What to let off of each amount, from the first on, so that their sum is `most` at most."""
    over = max(0, sum(amounts) - most)
    caps = []
    for amount in amounts:
        caps.append(min(amount, over))
        over -= caps[-1]
    return caps


def charged_micros(job_id: UUID) -> int:
    """What a job was charged; 0 when it wasn't."""
    return sum(
        Charge.objects.filter(usage_record__job_id=job_id).values_list("amount_micros", flat=True),
    )
