"""What is left of each credit grant: spent by priority, lost at its expiry.

A hold reserves credit as a whole; grants are drawn on when it is settled, so that what a failed job had reserved was
never taken from anywhere. All that is left of a tenant's grants is its credit and what is held, and more than that by
what it owes on account: the next grant makes up for that first.
"""

import uuid
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Sum

from billing.ledger.models import CreditGrant, Entry, LedgerAccount, Transaction

Kind = LedgerAccount.Kind
_DRAW = """
WITH spendable AS (
    SELECT id, priority, expires_at, created_at, remaining_micros FROM billing_creditgrant
     WHERE tenant_id = %(tenant)s AND currency = %(currency)s AND remaining_micros > 0
       FOR NO KEY UPDATE
), queue AS (
    SELECT id, remaining_micros, sum(remaining_micros) OVER (
               ORDER BY priority, expires_at NULLS LAST, created_at, id
           ) - remaining_micros AS before
      FROM spendable
), share AS (
    SELECT id, least(remaining_micros, %(amount)s - before)::bigint AS micros FROM queue WHERE before < %(amount)s
), spent AS (
    UPDATE billing_creditgrant AS credit SET remaining_micros = credit.remaining_micros - share.micros
      FROM share WHERE credit.id = share.id
)
INSERT INTO billing_creditdraw (grant_id, transaction_id, amount_micros)
SELECT id, %(transaction)s, micros FROM share
"""


def drawn(made: Transaction, *, amount_micros: int) -> None:
    """Takes what a transaction spent from the tenant's grants, as far as they go; in the ledger's transaction."""
    if amount_micros:
        with connection.cursor() as cursor:
            fields: dict[str, Any] = {"tenant": made.tenant_id, "currency": made.currency, "transaction": made.id}
            cursor.execute(_DRAW, {**fields, "amount": amount_micros})


def granted(
    made: Transaction,
    *,
    category: CreditGrant.Category,
    priority: int = 50,
    expires_at: datetime | None = None,
) -> None:
    """Keeps what a transaction gave as a grant, less what the tenant owed on account; in the ledger's transaction,
    which holds the tenant's accounts."""
    amount = Entry.objects.filter(transaction=made, account__kind=Kind.CREDIT).aggregate(sum=Sum("amount_micros"))[
        "sum"
    ]
    if not amount:
        return
    accounts = LedgerAccount.objects.filter(
        tenant=made.tenant_id, currency=made.currency, kind__in=(Kind.CREDIT, Kind.HELD)
    )
    have = accounts.aggregate(sum=Sum("balance_micros"))["sum"]
    grants = CreditGrant.objects.filter(tenant=made.tenant_id, currency=made.currency)
    left = grants.aggregate(sum=Sum("remaining_micros"))["sum"] or 0
    CreditGrant.objects.create(
        id=uuid.uuid4(),
        tenant_id=made.tenant_id,
        transaction=made,
        category=category,
        priority=priority,
        currency=made.currency,
        amount_micros=amount,
        remaining_micros=min(amount, max(0, have - left)),
        expires_at=expires_at,
        created_at=made.created_at,
    )
