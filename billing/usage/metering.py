"""Records and charges usage that has no hold: storage and dedicated pools."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID, uuid5

from django.db import transaction

from billing.ledger.accounts import balance_lock
from billing.ledger.postings import usage_charge
from billing.pricing.rating import Prices, Quantity
from billing.usage.models import Charge, UsageRecord
from billing.usage.settlement import charge_of, rated
from tenants.models import Project

# Never change it: a record's key in this namespace is the ledger's reference, which makes a repeat harmless.
_NAMESPACE = UUID("5a1c4bb0-6d1c-4e55-9f5e-1d0f7a3f2c11")


@transaction.atomic
def usage_meter(
    *,
    project: Project,
    quantity: Quantity,
    dimensions: Mapping[str, str],
    source: str,
    key: str,
    occurred_at: datetime,
    description: str,
    now: datetime,
) -> bool:
    """Record a quantity and charge it at `now` by the prices of `occurred_at`; False if `key` was metered before.

    The part that credit doesn't cover is owed. A quantity without a price is recorded and not charged.
    """
    tenant = project.tenant
    balance_lock(tenant)
    record = UsageRecord(
        idempotency_key=key,
        tenant=tenant,
        project=project,
        meter=quantity.meter,
        quantity=quantity.amount,
        dimensions={**dimensions, "labels": project.labels},
        source=source,
        occurred_at=occurred_at,
    )
    UsageRecord.objects.bulk_create([record], ignore_conflicts=True)
    if not UsageRecord.objects.filter(id=record.id).exists():
        return False
    line = rated(tenant, Prices.in_force(tenant=tenant, now=occurred_at), quantity, now)
    if line is None:
        return True
    posted = usage_charge(
        project=project,
        meter=quantity.meter,
        amount_micros=line.amount_micros,
        reference=uuid5(_NAMESPACE, key),
        now=now,
        description=description,
    )
    assert posted is not None  # the record is new, and its key names the transaction
    Charge.objects.bulk_create([charge_of(record, line, posted)])
    return True
