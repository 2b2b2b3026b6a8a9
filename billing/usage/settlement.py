"""Settles a job's hold: usage records, their charges and the ledger's post, together or not at all."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from django.db import transaction

from billing.ledger.accounts import balance_lock
from billing.ledger.holds import held_micros, hold_post
from billing.ledger.models import Transaction
from billing.pricing.models import Rate
from billing.pricing.rating import Prices, Quantity, RatedLine
from billing.usage.models import Charge, UsageRecord
from billing.usage.months import month_take
from tenants.models import Project, Tenant


@transaction.atomic
def settle(
    *,
    project: Project,
    job_id: UUID,
    quantities: Sequence[Quantity],
    dimensions: Mapping[str, str],
    prices: Prices,
    now: datetime,
) -> int:
    """Charges a job from what was measured; returns the micro-units charged.

    A tenant never pays more than was held, which was the quote: what goes over is let off by `cap` charges on the
    first usage records. What nobody prices is recorded and not charged. Repeated, it does nothing and returns what was
    charged the first time.
    """
    model, tier = dimensions.get("model", ""), dimensions.get("tier", "")
    used = [replace(quantity, model=model, tier=tier) for quantity in quantities]
    if _has_tiers(prices, used):
        # A repeat must not count towards the month: with the accounts locked, who has settled is known.
        balance_lock(project.tenant)
        if Transaction.objects.filter(reference=job_id, kind__in=(POST, VOID)).exists():
            return charged_micros(job_id)
    rated = [(quantity, _rated(project.tenant, prices, quantity, now)) for quantity in used]
    let_off = _caps([line.amount_micros if line else 0 for _, line in rated], most=held_micros(job_id))
    amounts: dict[str, int] = {}
    for (quantity, line), cap in zip(rated, let_off, strict=True):
        if line is not None:
            amounts[quantity.meter] = amounts.get(quantity.meter, 0) + line.amount_micros - cap
    posted = hold_post(tenant=project.tenant, amounts=amounts, reference=job_id, now=now)
    if posted is None:
        return charged_micros(job_id)
    records = [
        UsageRecord(
            id=uuid.uuid4(),
            idempotency_key=f"job/{job_id}/{quantity.meter}",
            tenant_id=project.tenant_id,
            project=project,
            job_id=job_id,
            meter=quantity.meter,
            quantity=quantity.amount,
            # Labels as they are now: a report of this month stays as it is when projects move.
            dimensions={**dimensions, "gpu_class": quantity.gpu_class, "labels": project.labels},
            occurred_at=now,
        )
        for quantity in used
    ]
    UsageRecord.objects.bulk_create(records)
    priced = [
        (record, line, cap) for record, (_, line), cap in zip(records, rated, let_off, strict=True) if line is not None
    ]
    charges = [charge_of(record, line, posted) for record, line, _ in priced]
    charges += [cap_of(charge, -cap) for charge, (_, _, cap) in zip(charges, priced, strict=True) if cap]
    Charge.objects.bulk_create(charges)
    return sum(amounts.values())


POST, VOID = Transaction.Kind.POST, Transaction.Kind.VOID


def charge_of(record: UsageRecord, line: RatedLine, made: Transaction) -> Charge:
    """What a record of usage cost."""
    return Charge(
        id=uuid.uuid4(),
        usage_record=record,
        transaction=made,
        rate_id=line.tariff.rate_id,
        contract_id=line.contract_id,
        used_before=line.used_before,
        discount=line.discount,
        amount_micros=line.amount_micros,
        list_micros=line.list_micros,
        currency=made.currency,
        created_at=made.created_at,
    )


def cap_of(charge: Charge, amount_micros: int) -> Charge:
    """What is let off of a charge, below zero; above zero, what a correction takes back of that."""
    return Charge(
        id=uuid.uuid4(),
        usage_record=charge.usage_record,
        transaction=charge.transaction,
        kind=Charge.Kind.CAP,
        rate_id=charge.rate_id,
        contract_id=charge.contract_id,
        discount=charge.discount,
        amount_micros=amount_micros,
        list_micros=0,
        currency=charge.currency,
        statement=charge.statement,
        created_at=charge.created_at,
    )


def _rated(tenant: Tenant, prices: Prices, quantity: Quantity, now: datetime) -> RatedLine | None:
    tariff = prices.tariff(quantity)
    if tariff is None:
        return None
    return prices.line(quantity, used_before=month_take(tenant=tenant, tariff=tariff, amount=quantity.amount, now=now))


def _has_tiers(prices: Prices, quantities: Sequence[Quantity]) -> bool:
    tariffs = (prices.tariff(quantity) for quantity in quantities)
    return any(tariff is not None and tariff.mode != Rate.Mode.FLAT for tariff in tariffs)


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
