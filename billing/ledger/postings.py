"""Postings without a hold: grants, charges, corrections, adjustments, taxes, expiry and write-offs."""

from datetime import datetime
from uuid import UUID

from django.db import transaction

from billing.ledger.accounts import Kind, Side, balance_lock, transaction_record
from billing.ledger.budget_months import budgets_spend
from billing.ledger.grants import grant_add, grants_consume
from billing.ledger.models import CreditGrant, Transaction
from billing.money import AMOUNT_MICROS_MAX
from tenants.models import Project, Tenant


@transaction.atomic
def credit_grant(
    *,
    tenant: Tenant,
    amount_micros: int,
    reference: UUID,
    now: datetime,
    description: str = "",
    category: CreditGrant.Category = CreditGrant.Category.PAID,
    priority: int = 50,
    expires_at: datetime | None = None,
) -> bool:
    """Give credit, which pays what the tenant owes first. False if this grant was made before.

    Raises `ValueError` unless the amount is between 1 and `AMOUNT_MICROS_MAX` and `expires_at` is later than `now`.
    """
    if not 0 < amount_micros <= AMOUNT_MICROS_MAX:
        raise ValueError(f"the amount of a grant must be between 1 and {AMOUNT_MICROS_MAX} micros")
    if expires_at is not None and expires_at <= now:
        raise ValueError("a grant must expire later than it is made")
    row = _row(Transaction.Kind.GRANT, tenant, reference, now, description)
    posted = _give(row, amount_micros, source=(Kind.FUNDING, ""))
    if posted is not None:
        grant_add(posted, category=category, priority=priority, expires_at=expires_at)
    return posted is not None


@transaction.atomic
def usage_charge(
    *,
    project: Project,
    meter: str,
    amount_micros: int,
    reference: UUID,
    now: datetime,
    description: str = "",
    kind: Transaction.Kind = Transaction.Kind.CHARGE,
) -> Transaction | None:
    """Charge usage that has no hold, or what a correction changes (`kind` CORRECT): below zero, a refund.

    None if done before.
    """
    if amount_micros < 0 and kind != Transaction.Kind.CORRECT:
        raise ValueError("a charge must not be negative")
    row = _row(kind, project.tenant, reference, now, description)
    return _charge(row, amount_micros, to=(Kind.REVENUE, meter), project=project)


@transaction.atomic
def balance_adjust(
    *,
    tenant: Tenant,
    amount_micros: int,
    reference: UUID,
    now: datetime,
    description: str = "",
    project: Project | None = None,
) -> Transaction | None:
    """Charge an amount without usage, or give it if it is below zero. None if done before. Raises `ValueError`."""
    if not 0 < abs(amount_micros) <= AMOUNT_MICROS_MAX:
        raise ValueError(f"an adjustment must not be 0, nor more than {AMOUNT_MICROS_MAX} micros")
    row = _row(Transaction.Kind.ADJUST, tenant, reference, now, description)
    return _charge(row, amount_micros, to=(Kind.ADJUSTMENTS, ""), project=project)


@transaction.atomic
def tax_charge(*, tenant: Tenant, amount_micros: int, reference: UUID, now: datetime, description: str) -> None:
    """Charge the tax of a statement, or refund it if it is below zero; once."""
    row = _row(Transaction.Kind.TAX, tenant, reference, now, description)
    _charge(row, amount_micros, to=(Kind.TAX, ""))


@transaction.atomic
def debt_write_off(*, tenant: Tenant, reference: UUID, now: datetime, description: str = "") -> Transaction | None:
    """Write off all that a tenant owes. None if done before, or if it owes nothing."""
    balance = balance_lock(tenant)
    if not balance.owed:
        return None
    movements = {
        (Kind.RECEIVABLE, ""): -balance.receivable,
        (Kind.CREDIT, ""): balance.owed + balance.receivable,
        (Kind.WRITE_OFF, ""): -balance.owed,
    }
    return transaction_record(_row(Transaction.Kind.WRITE_OFF, tenant, reference, now, description), movements)


def _row(kind: Transaction.Kind, tenant: Tenant, reference: UUID, now: datetime, description: str) -> Transaction:
    return Transaction(kind=kind, tenant=tenant, reference=reference, created_at=now, description=description)


def _give(row: Transaction, amount: int, *, source: Side) -> Transaction | None:
    """Move an amount to the tenant: it pays what the tenant owes first, the rest is credit."""
    paid = min(-balance_lock(row.tenant).receivable, amount)
    return transaction_record(row, {source: -amount, (Kind.RECEIVABLE, ""): paid, (Kind.CREDIT, ""): amount - paid})


def _charge(row: Transaction, amount: int, *, to: Side, project: Project | None = None) -> Transaction | None:
    """Move an amount from the tenant's credit down to its limit, the rest is owed; below zero, refund it."""
    if amount < 0:
        posted = _give(row, -amount, source=to)
        if posted is not None:
            grant_add(posted, category=CreditGrant.Category.REFUND)
    else:
        from_credit = max(0, min(balance_lock(row.tenant).available, amount))
        movements = {(Kind.CREDIT, ""): -from_credit, (Kind.RECEIVABLE, ""): from_credit - amount, to: amount}
        posted = transaction_record(row, movements)
        if posted is not None:
            grants_consume(posted, amount_micros=from_credit)
    if posted is not None and amount and posted.kind != Transaction.Kind.TAX:
        budgets_spend(posted, project, amount_micros=amount)
    return posted
