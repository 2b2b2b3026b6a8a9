"""Writes double entries: the one way in which money moves."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from django.db import transaction

from billing.ledger.accounts import Side, accounts_open
from billing.ledger.models import Entry, Transaction
from tenants.models import Tenant


@transaction.atomic
def transaction_record(
    tenant: Tenant,
    kind: Transaction.Kind,
    reference: UUID,
    movements: Mapping[Side, int],
    now: datetime,
    description: str = "",
) -> Transaction | None:
    """Write a transaction with its entries; None if the unique indexes say that it has been written before."""
    row = Transaction(
        tenant=tenant, kind=kind, currency=tenant.currency, reference=reference, description=description, created_at=now
    )
    Transaction.objects.bulk_create([row], ignore_conflicts=True)
    if not Transaction.objects.filter(id=row.id).exists():
        return None
    amounts = {side: amount for side, amount in movements.items() if amount}
    accounts = accounts_open(tenant, list(amounts))
    # The trigger locks each entry's account: one order everywhere, so that no two transactions deadlock.
    Entry.objects.bulk_create(
        Entry(transaction=row, account=accounts[side], amount_micros=amounts[side]) for side in sorted(amounts)
    )
    return row
