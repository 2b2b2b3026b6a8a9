"""The remainder of each credit grant: consumed by priority, lost at its expiry.

A hold reserves credit as a whole. Grants are consumed when it is posted, so a failed job never took anything of a
grant. The remainders of a tenant in debt are more than its credit by what it owes within its credit limit.
"""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from django.db import connection, transaction
from django.db.models import Sum

from billing.ledger.accounts import Kind, balance_lock, transaction_record
from billing.ledger.models import CreditDraw, CreditGrant, LedgerAccount, Transaction

# Never change it: a grant's id in this namespace is the ledger's reference, which makes a repeat harmless.
_NAMESPACE = UUID("8f0e6f0a-41c5-4b7e-9a53-6f2f5f8f7a10")
_CONSUME = """
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


def grants_consume(posted: Transaction, *, amount_micros: int) -> None:
    """Consume the tenant's grants by what a transaction spent, as far as they go; in the ledger's transaction."""
    if amount_micros:
        own: dict[str, Any] = {"tenant": posted.tenant_id, "currency": posted.currency}
        with connection.cursor() as cursor:
            cursor.execute(_CONSUME, {**own, "transaction": posted.id, "amount": amount_micros})


def grant_add(
    posted: Transaction, *, category: CreditGrant.Category, priority: int = 50, expires_at: datetime | None = None
) -> None:
    """Add a grant for the credit that a transaction gave, less the debt that it paid; in the ledger's transaction."""
    amount = posted.entries.filter(account__kind=Kind.CREDIT).aggregate(sum=Sum("amount_micros"))["sum"]
    if not amount:
        return
    own: dict[str, Any] = {"tenant": posted.tenant, "currency": posted.currency}
    accounts = LedgerAccount.objects.filter(**own, kind__in=(Kind.CREDIT, Kind.HELD))
    balance = accounts.aggregate(sum=Sum("balance_micros"))["sum"]
    remaining = CreditGrant.objects.filter(**own).aggregate(sum=Sum("remaining_micros"))["sum"] or 0
    CreditGrant.objects.create(
        **own,
        transaction=posted,
        category=category,
        priority=priority,
        amount_micros=amount,
        remaining_micros=min(amount, max(0, balance - remaining)),
        expires_at=expires_at,
        created_at=posted.created_at,
    )


def grants_expire(*, now: datetime) -> int:
    """Take what is not held of each expired grant; return the number of grants. A later call takes the rest."""
    due = CreditGrant.objects.filter(expires_at__lte=now, remaining_micros__gt=0).order_by("expires_at", "id")
    return sum(_expire(grant_id, now) for grant_id in list(due.values_list("id", flat=True)))


@transaction.atomic
def _expire(grant_id: UUID, now: datetime) -> bool:
    tenant = CreditGrant.objects.select_related("tenant").get(id=grant_id).tenant
    free = balance_lock(tenant).credit  # accounts are locked before grants, as everywhere
    grant = CreditGrant.objects.select_for_update().get(id=grant_id)
    amount = min(grant.remaining_micros, free)
    if amount <= 0:
        return False
    # The remainder shrinks each time, so it tells the times apart.
    reference = uuid5(_NAMESPACE, f"{grant.id}/{grant.remaining_micros}")
    row = Transaction(kind=Transaction.Kind.EXPIRE, tenant=tenant, reference=reference, created_at=now)
    row.description = "expired credit"
    posted = transaction_record(row, {(Kind.CREDIT, ""): -amount, (Kind.EXPIRED, ""): amount})
    if posted is None:
        return False
    grant.remaining_micros -= amount
    grant.save(update_fields=["remaining_micros"])
    CreditDraw.objects.create(grant=grant, transaction=posted, amount_micros=amount)
    return True
