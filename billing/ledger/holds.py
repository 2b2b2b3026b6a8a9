"""Holds: credit reserved for a job. A hold is settled once, by a post or by a void, whichever commits first."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from django.db import transaction

from billing.ledger.accounts import Kind, accounts_open, balance_lock, transaction_record
from billing.ledger.budget_months import budgets_hold, budgets_settle
from billing.ledger.grants import grants_consume
from billing.ledger.models import Entry, Transaction
from billing.money import format_micros
from core.errors import DomainError
from core.pipeline import PipelinedQuery, Query, run_query
from tenants.models import ApiKey, Project, Tenant


class InsufficientBalance(
    DomainError, code="insufficient_quota", type="insufficient_quota", http_status=429, passes_later=True
):
    """The balance doesn't cover what this request may cost: add credit.

    Have credit added to the account. `GET /v1/balance` shows what can be spent; repeating the request doesn't help.
    """


class HoldUnknown(Exception):
    """There is no hold with this reference: a defect of the caller."""


# One query, because every request waits for it. The row lock makes concurrent holds of a tenant take turns; a check
# constraint refuses any overdraft that would get past it.
_HOLD = """
WITH credit AS (
    SELECT id, balance_micros, credit_limit_micros, budgeted FROM billing_ledgeraccount
    WHERE tenant_id = %(tenant)s AND currency = %(currency)s AND kind = 'credit' FOR NO KEY UPDATE
), held AS (
    SELECT id FROM billing_ledgeraccount WHERE tenant_id = %(tenant)s AND currency = %(currency)s AND kind = 'held'
), made AS (
    INSERT INTO billing_transaction (id, tenant_id, kind, currency, reference, description, created_at)
    SELECT %(id)s, %(tenant)s, 'hold', %(currency)s, %(reference)s, '', %(now)s
    FROM credit CROSS JOIN held WHERE balance_micros + credit_limit_micros >= %(amount)s
    ON CONFLICT DO NOTHING RETURNING id
), moved AS (
    INSERT INTO billing_entry (transaction_id, account_id, amount_micros)
    SELECT made.id, side.account_id, side.amount_micros
    FROM made CROSS JOIN (
        SELECT id, -%(amount)s::bigint FROM credit UNION ALL SELECT id, %(amount)s::bigint FROM held
    ) AS side (account_id, amount_micros)
    WHERE %(amount)s <> 0
)
SELECT EXISTS (SELECT FROM made),
       (SELECT balance_micros + credit_limit_micros FROM credit CROSS JOIN held),
       (SELECT budgeted FROM credit)
"""


def hold_take(
    *,
    tenant: Tenant,
    amount_micros: int,
    reference: UUID,
    now: datetime,
    project: Project | None = None,
    api_key: ApiKey | None = None,
) -> PipelinedQuery[bool]:
    """Reserve credit, and the same amount of every budget of tenant, project and key. False if it is reserved already.

    Raises `InsufficientBalance`, `BudgetExceeded`; the caller's transaction must then not commit.
    """
    if amount_micros < 0:
        raise ValueError("a hold must not be negative")
    owner: dict[str, Any] = {"tenant": tenant, "project": project, "api_key": api_key}
    hold: dict[str, Any] = {"amount_micros": amount_micros, "reference": reference, "now": now}
    fields = {"tenant": tenant.pk, "currency": tenant.currency, "amount": amount_micros, "id": uuid4()}
    ((made, available, budgeted),) = yield Query(_HOLD, {**fields, "reference": reference, "now": now})
    if made:
        if budgeted and amount_micros:
            budgets_hold(**owner, **hold)
        return True
    if Transaction.objects.filter(reference=reference, kind=Transaction.Kind.HOLD).exists():
        return False
    if available is None:  # the tenant's first hold: it has no accounts yet
        accounts_open(tenant, [(Kind.CREDIT, ""), (Kind.HELD, "")])
        return run_query(hold_take(**owner, **hold))
    cost, left = (format_micros(micros, tenant.currency) for micros in (amount_micros, available))
    raise InsufficientBalance(f"this request may cost up to {cost}, and {left} is available: add credit")


@transaction.atomic
def hold_post(*, tenant: Tenant, amounts: Mapping[str, int], reference: UUID, now: datetime) -> Transaction | None:
    """Charge `amounts`, micro-units by meter, to a hold and return its rest; None if the hold was settled before.

    Raises `HoldUnknown`, and `ValueError` for an amount below zero or a sum above the hold.
    """
    return _settle(Transaction(kind=Transaction.Kind.POST, tenant=tenant, reference=reference, created_at=now), amounts)


@transaction.atomic
def hold_void(*, tenant: Tenant, reference: UUID, now: datetime) -> bool:
    """Return a hold whole; False if it was settled before. Raises `HoldUnknown`."""
    void = Transaction(kind=Transaction.Kind.VOID, tenant=tenant, reference=reference, created_at=now)
    return _settle(void, {}) is not None


def _settle(row: Transaction, amounts: Mapping[str, int]) -> Transaction | None:
    balance_lock(row.tenant)  # before the settlement is written, as in every verb: no deadlock
    held, amount = held_micros(row.reference), sum(amounts.values())
    if amount > held or min(amounts.values(), default=0) < 0:
        raise ValueError(f"can't charge {dict(amounts)} to a hold of {held}")
    revenue = {(Kind.REVENUE, meter): micros for meter, micros in amounts.items()}
    movements = {(Kind.HELD, ""): -held, (Kind.CREDIT, ""): held - amount, **revenue}
    posted = transaction_record(row, movements)
    if posted is not None:
        grants_consume(posted, amount_micros=amount)
        budgets_settle(posted, spent_micros=amount)
    return posted


def held_micros(reference: UUID) -> int:
    """Return the amount that a hold reserved, even if it is settled by now. Raises `HoldUnknown`."""
    holds = Transaction.objects.filter(reference=reference, kind=Transaction.Kind.HOLD)
    entries = Entry.objects.filter(transaction__in=holds, account__kind=Kind.HELD)
    found = list(entries.values_list("amount_micros", flat=True))
    # The hold of a free request has no entries.
    if not found and not holds.exists():
        raise HoldUnknown(str(reference))
    return sum(found)
