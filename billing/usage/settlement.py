"""Settles a job's hold: writes usage records, their charges and the ledger's post together."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from datetime import datetime
from uuid import UUID, uuid4

from django.db import transaction

from billing.ledger.accounts import balance_lock
from billing.ledger.holds import held_micros, hold_post
from billing.ledger.models import Transaction
from billing.pricing.models import Rate
from billing.pricing.rating import ZERO, Prices, Quantity, RatedLine
from billing.usage.models import Charge, UsageRecord
from billing.usage.months import month_take
from tenants.models import Project, Tenant

POST, VOID = Transaction.Kind.POST, Transaction.Kind.VOID


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
    """Charge a job for its measured quantities; return the micro-units charged.

    The cost above the hold, which was the quote, is waived by `waiver` charges of the first usage records. A quantity
    without a price is recorded and not charged. A repeat changes nothing and returns what was charged the first time.
    """
    model, tier = dimensions.get("model", ""), dimensions.get("tier", "")
    used = [replace(quantity, model=model, tier=tier) for quantity in quantities]
    tariffs = [prices.tariff(quantity) for quantity in used]
    if any(tariff is not None and tariff.mode != Rate.Mode.FLAT for tariff in tariffs):
        # A repeat must not count towards the month. With the balance locked, nobody else can be settling the job.
        balance_lock(project.tenant)
        if Transaction.objects.filter(reference=job_id, kind__in=(POST, VOID)).exists():
            return job_charged_micros(job_id)
    lines = [rated(project.tenant, prices, quantity, now) for quantity in used]
    waived = _waived([line.amount_micros if line else 0 for line in lines], max_micros=held_micros(job_id))
    amounts: dict[str, int] = {}
    for quantity, line, micros in zip(used, lines, waived, strict=True):
        if line is not None:
            amounts[quantity.meter] = amounts.get(quantity.meter, 0) + line.amount_micros - micros
    posted = hold_post(tenant=project.tenant, amounts=amounts, reference=job_id, now=now)
    if posted is None:
        return job_charged_micros(job_id)
    records = [
        UsageRecord(
            idempotency_key=f"job/{job_id}/{quantity.meter}",
            tenant_id=project.tenant_id,
            project=project,
            job_id=job_id,
            meter=quantity.meter,
            quantity=quantity.amount,
            # The project's labels as they are now: later changes must not change a report of this month.
            dimensions={**dimensions, "gpu_class": quantity.gpu_class, "labels": project.labels},
            occurred_at=now,
        )
        for quantity in used
    ]
    UsageRecord.objects.bulk_create(records)
    rows = zip(records, lines, waived, strict=True)
    priced = [(charge_of(record, line, posted), micros) for record, line, micros in rows if line]
    waivers = [waiver_of(charge, -micros) for charge, micros in priced if micros]
    Charge.objects.bulk_create([*(charge for charge, _ in priced), *waivers])
    return sum(amounts.values())


def charge_of(record: UsageRecord, line: RatedLine, posted: Transaction) -> Charge:
    """Return the charge of a usage record, not saved."""
    return Charge(
        usage_record=record,
        transaction=posted,
        rate_id=line.tariff.rate_id,
        contract_id=line.contract_id,
        used_before=line.used_before,
        discount=line.discount,
        amount_micros=line.amount_micros,
        list_micros=line.list_micros,
        currency=posted.currency,
        created_at=posted.created_at,
    )


def waiver_of(charge: Charge, amount_micros: int) -> Charge:
    """Return the waiver of a charge, not saved: below zero; above zero where a correction takes a waiver back."""
    waiver = copy(charge)
    waiver.id, waiver.kind = uuid4(), Charge.Kind.WAIVER
    waiver.amount_micros, waiver.list_micros, waiver.used_before = amount_micros, 0, ZERO
    return waiver


def rated(tenant: Tenant, prices: Prices, quantity: Quantity, now: datetime) -> RatedLine | None:
    """Rate a quantity and count it towards the month of `now`; None if it has no price."""
    tariff = prices.tariff(quantity)
    if tariff is None:
        return None
    return prices.line(quantity, used_before=month_take(tenant=tenant, tariff=tariff, amount=quantity.amount, now=now))


def _waived(amounts: Sequence[int], *, max_micros: int) -> list[int]:
    """Return what to waive of each amount, from the first on, so that their sum is `max_micros` at most."""
    excess = max(0, sum(amounts) - max_micros)
    waived = []
    for amount in amounts:
        waived.append(min(amount, excess))
        excess -= waived[-1]
    return waived


def job_charged_micros(job_id: UUID) -> int:
    """Return what a job was charged; 0 if it was not."""
    return sum(Charge.objects.filter(usage_record__job_id=job_id).values_list("amount_micros", flat=True))
