"""Settles a job's hold: usage records, their charges and the ledger's post, together or not at all."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from django.db import transaction

from billing import ledger
from billing.models import Charge, UsageRecord
from billing.rating import Prices, Quantity, total_micros
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

    A tenant never pays more than was held, which was the quote: what goes over is let off by a `cap` charge on
    the first usage record. Repeated, it does nothing and returns what was charged the first time.
    """
    lines = prices.rate(quantities)
    held = ledger.held_micros(job_id)
    charged = min(total_micros(lines), held)
    posted = ledger.post(tenant=project.tenant, amount_micros=charged, reference=job_id, at=at)
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
    charges = [
        Charge(
            usage_record=record,
            transaction=posted,
            rate_id=line.rate_id,
            amount_micros=line.amount_micros,
            currency=prices.currency,
            created_at=at,
        )
        for record, line in zip(records, lines, strict=True)
    ]
    if over := total_micros(lines) - charged:
        first = charges[0]
        charges.append(
            Charge(
                usage_record=first.usage_record,
                transaction=posted,
                kind=Charge.Kind.CAP,
                rate_id=first.rate_id,
                amount_micros=-over,
                currency=prices.currency,
                created_at=at,
            )
        )
    Charge.objects.bulk_create(charges)
    return charged


def charged_micros(job_id: UUID) -> int:
    """What a job was charged; 0 when it wasn't."""
    return sum(
        Charge.objects.filter(usage_record__job_id=job_id).values_list("amount_micros", flat=True),
    )
