"""Reads usage, costs and totals of accounts."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from django.db.models import Q, Sum

from billing.ledger.models import LedgerAccount
from billing.pricing.models import Meter
from billing.usage.models import Charge, UsageRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class CostLine:
    """The charges of one meter and kind of a job. A waiver has no quantity of its own: the line of its usage has it."""

    meter: Meter
    kind: Charge.Kind
    quantity: Decimal
    amount_micros: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCost:
    """The usage of one job, and its cost, which is the sum of its lines."""

    image_units: Decimal
    gpu_seconds: Decimal
    lines: tuple[CostLine, ...]

    @property
    def cost_micros(self) -> int:
        return sum(line.amount_micros for line in self.lines)


def job_costs(job_ids: Sequence[UUID]) -> dict[UUID, JobCost]:
    """Return the cost of each job that has usage records."""
    records = UsageRecord.objects.filter(job_id__in=job_ids).order_by().values_list("job_id")  # with their corrections
    units, seconds = (
        Sum("quantity", filter=Q(meter=meter), default=Decimal(0)) for meter in (Meter.IMAGE_UNIT, Meter.GPU_SECOND)
    )
    charges = (
        Charge.objects.filter(usage_record__job_id__in=job_ids)
        .order_by("usage_record__meter", "kind")
        .values_list("usage_record__job_id", "usage_record__meter", "kind")
        .annotate(Sum("usage_record__quantity"), Sum("amount_micros"))
    )
    lines: dict[UUID, list[CostLine]] = defaultdict(list)
    for job_id, meter, kind, quantity, amount_micros in charges:
        if kind == Charge.Kind.WAIVER:
            quantity = Decimal(0)
        line = CostLine(meter=Meter(meter), kind=Charge.Kind(kind), quantity=quantity, amount_micros=amount_micros)
        lines[job_id].append(line)
    return {
        job_id: JobCost(image_units=image_units, gpu_seconds=gpu_seconds, lines=tuple(lines[job_id]))
        for job_id, image_units, gpu_seconds in records.annotate(units=units, seconds=seconds)
    }


def gpu_seconds_by_tenant() -> list[tuple[str, Decimal]]:
    """Return (tenant, GPU seconds) billed since the beginning."""
    rows = UsageRecord.objects.filter(meter=Meter.GPU_SECOND).order_by().values_list("tenant__slug")
    return list(rows.annotate(Sum("quantity")))


def revenue_by_tenant() -> list[tuple[str, str, int]]:
    """Return (tenant, currency, micro-units) earned since the beginning."""
    rows = LedgerAccount.objects.filter(kind=LedgerAccount.Kind.REVENUE).order_by("tenant__slug", "currency")
    return list(rows.values_list("tenant__slug", "currency").annotate(Sum("balance_micros")))


def credit_by_tenant() -> list[tuple[str, str, int]]:
    """Return (tenant, currency, micro-units) of remaining credit."""
    rows = LedgerAccount.objects.filter(kind=LedgerAccount.Kind.CREDIT).order_by("tenant__slug")
    return list(rows.values_list("tenant__slug", "currency", "balance_micros"))


def ledger_imbalance() -> list[tuple[str, int]]:
    """Return (currency, micro-units), the sum of all balances, which must be 0."""
    return list(LedgerAccount.objects.order_by().values_list("currency").annotate(Sum("balance_micros")))
