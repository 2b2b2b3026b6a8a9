"""Reads of what was used and what it cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db.models import F, Q, Sum, TextField, Value
from django.db.models.fields.json import KT
from django.db.models.functions import Coalesce, TruncDate

from billing.models import Account, Charge, Meter, UsageRecord
from tenants.models import Tenant

GROUPS: dict[str, Any] = {
    "project": F("project__slug"),
    # Storage has none of these.
    "model": Coalesce(KT("dimensions__model"), Value("", TextField())),
    "adapter": Coalesce(KT("dimensions__adapter"), Value("", TextField())),
    "tier": Coalesce(KT("dimensions__tier"), Value("", TextField())),
    "day": TruncDate("occurred_at"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """What a group used and cost; `group` has a value per name that was grouped by."""

    group: dict[str, str]
    requests: int
    image_units: Decimal
    gpu_seconds: Decimal
    storage_gb_seconds: Decimal
    cost_micros: int


def usage(*, tenant: Tenant, group_by: Sequence[str], start: date, end: date) -> list[UsageRow]:
    """Sums per group over the days `start` to `end`, both included, in UTC. `group_by` names `GROUPS`."""
    records = UsageRecord.objects.filter(tenant=tenant, occurred_at__date__gte=start, occurred_at__date__lte=end)
    keys = {f"by_{name}": GROUPS[name] for name in group_by}
    grouped = records.annotate(**keys).order_by().values(*keys)
    quantities = grouped.annotate(
        **{meter.value: Coalesce(Sum("quantity", filter=Q(meter=meter)), Decimal(0)) for meter in Meter}
    )
    # Two queries, since a join of records with their charges would count a quantity once per charge.
    costs = {
        tuple(row[key] for key in keys): row["cost"]
        for row in grouped.annotate(cost=Coalesce(Sum("charges__amount_micros"), 0))
    }
    rows = [
        UsageRow(
            group={name: str(row[f"by_{name}"]) for name in group_by},
            requests=int(row[Meter.REQUEST]),
            image_units=row[Meter.IMAGE_UNIT],
            gpu_seconds=row[Meter.GPU_SECOND],
            storage_gb_seconds=row[Meter.STORAGE_GB_SECOND],
            cost_micros=costs[tuple(row[key] for key in keys)],
        )
        for row in quantities
    ]
    return sorted(rows, key=lambda row: tuple(row.group.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCost:
    """What one job was measured to use, and what it was charged."""

    image_units: Decimal
    gpu_seconds: Decimal
    cost_micros: int


def job_costs(job_ids: Sequence[UUID]) -> dict[UUID, JobCost]:
    """By job; a job that wasn't charged is not there."""
    quantities: dict[UUID, dict[str, Decimal]] = {}
    for record in UsageRecord.objects.filter(job_id__in=job_ids):
        assert record.job_id is not None  # by the filter
        of_job = quantities.setdefault(record.job_id, {})
        of_job[record.meter] = of_job.get(record.meter, Decimal(0)) + record.quantity  # with its corrections
    charged = dict(
        Charge.objects.filter(usage_record__job_id__in=job_ids)
        .order_by()
        .values_list("usage_record__job_id")
        .annotate(Sum("amount_micros"))
    )
    return {
        job_id: JobCost(
            image_units=found.get(Meter.IMAGE_UNIT, Decimal(0)),
            gpu_seconds=found.get(Meter.GPU_SECOND, Decimal(0)),
            cost_micros=charged.get(job_id, 0),
        )
        for job_id, found in quantities.items()
    }


def gpu_seconds_by_tenant() -> list[tuple[str, Decimal]]:
    """(tenant, GPU seconds) billed since the beginning."""
    rows = UsageRecord.objects.filter(meter=Meter.GPU_SECOND).order_by().values_list("tenant__slug")
    return list(rows.annotate(Sum("quantity")))


def revenue_by_tenant() -> list[tuple[str, str, int]]:
    """(tenant, currency, micro-units) earned since the beginning."""
    rows = Account.objects.filter(kind=Account.Kind.REVENUE).order_by("tenant__slug", "currency")
    return list(rows.values_list("tenant__slug", "currency").annotate(Sum("balance_micros")))


def credit_by_tenant() -> list[tuple[str, str, int]]:
    """(tenant, currency, micro-units) that can still be spent."""
    rows = Account.objects.filter(kind=Account.Kind.CREDIT).order_by("tenant__slug")
    return list(rows.values_list("tenant__slug", "currency", "balance_micros"))


def ledger_imbalance() -> list[tuple[str, int]]:
    """(currency, micro-units): the sum of all balances, which is 0."""
    return list(Account.objects.order_by().values_list("currency").annotate(Sum("balance_micros")))
