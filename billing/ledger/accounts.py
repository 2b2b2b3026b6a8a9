"""A tenant's ledger accounts: balances, their lock, the credit limit, and the double entries in which money moves."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from django.db import transaction
from django.db.models import QuerySet, Sum

from billing.ledger.models import Entry, LedgerAccount, Transaction
from billing.money import AMOUNT_MICROS_MAX, format_micros
from core.errors import DomainError
from tenants.models import Tenant

Kind = LedgerAccount.Kind
# An account of a tenant: its kind and, for revenue, the meter.
Side = tuple[LedgerAccount.Kind, str]
_LOCKED = (Kind.CREDIT, Kind.HELD, Kind.RECEIVABLE)


class CreditLimitBelowDebt(DomainError, code="credit_limit_below_debt", http_status=409):
    """The tenant has already used more than this limit.

    Set a limit that is not below the debt, or record a payment first.
    """


class Balance(NamedTuple):
    """A tenant's balances in micro-units, and its credit limit."""

    credit: int
    held: int
    receivable: int
    limit: int

    @property
    def owed(self) -> int:
        """Debt beyond the credit limit plus the part of the limit that is used. Held credit is not owed yet."""
        return -self.receivable + max(0, -self.credit - self.held)

    @property
    def available(self) -> int:
        return self.credit + self.limit


def balance_of(tenant: Tenant) -> Balance:
    """Return a tenant's balance."""
    return _balance(_accounts(tenant))


def balance_lock(tenant: Tenant) -> Balance:
    """Return a tenant's balance, and let nobody else change it until the transaction ends."""
    accounts = _accounts(tenant).select_for_update()
    found = {account.kind for account in accounts}
    if missing := [(kind, "") for kind in _LOCKED if kind not in found]:
        # Create missing accounts before locking: a row that is added while we wait for the others would be neither
        # seen nor locked.
        _create(tenant, missing)
        accounts = accounts.all()
    return _balance(accounts)


def balances_by_kind(tenant: Tenant) -> dict[str, int]:
    """Return micro-units in the tenant's currency by account kind."""
    rows = LedgerAccount.objects.filter(tenant=tenant, currency=tenant.currency).order_by().values_list("kind")
    return {**dict.fromkeys(Kind.values, 0), **dict(rows.annotate(Sum("balance_micros")))}


def accounts_open(tenant: Tenant, sides: list[Side]) -> dict[Side, LedgerAccount]:
    """Return these accounts of a tenant; create those that are missing."""
    rows = LedgerAccount.objects.filter(tenant=tenant, currency=tenant.currency, kind__in={kind for kind, _ in sides})
    found: dict[Side, LedgerAccount] = {(Kind(row.kind), row.meter): row for row in rows}
    if missing := [side for side in sides if side not in found]:
        # Lock the balance first: a transaction that waits for a row that we add may hold the balance already, and
        # waiting for it afterwards would be a deadlock.
        balance_lock(tenant)
        _create(tenant, missing)
        return accounts_open(tenant, sides)
    return found


@transaction.atomic
def transaction_record(row: Transaction, movements: Mapping[Side, int]) -> Transaction | None:
    """Write a transaction with its entries; None if the unique indexes say that it has been written before."""
    row.currency = row.tenant.currency
    Transaction.objects.bulk_create([row], ignore_conflicts=True)
    if not Transaction.objects.filter(id=row.id).exists():
        return None
    amounts = {side: amount for side, amount in movements.items() if amount}
    accounts = accounts_open(row.tenant, list(amounts))
    # The trigger locks each entry's account: one order everywhere, so that no two transactions deadlock.
    Entry.objects.bulk_create(
        Entry(transaction=row, account=accounts[side], amount_micros=amounts[side]) for side in sorted(amounts)
    )
    return row


@transaction.atomic
def credit_limit_set(*, tenant: Tenant, limit_micros: int) -> None:
    """Set how far a tenant's credit may go below zero; 0 is prepaid. Raises `CreditLimitBelowDebt`, `ValueError`."""
    if not 0 <= limit_micros <= AMOUNT_MICROS_MAX:
        raise ValueError(f"a credit limit must be between 0 and {AMOUNT_MICROS_MAX} micros")
    used_micros = -balance_lock(tenant).credit
    if used_micros > limit_micros:
        used = format_micros(used_micros, tenant.currency)
        raise CreditLimitBelowDebt(f"{tenant} has already used {used}: the limit can't be below that")
    _accounts(tenant).filter(kind=Kind.CREDIT).update(credit_limit_micros=limit_micros)


def budgeted_set(*, tenant: Tenant, budgeted: bool) -> None:
    """Set whether a tenant's holds count towards budgets, and lock its balance until the transaction ends."""
    balance_lock(tenant)
    _accounts(tenant).filter(kind=Kind.CREDIT).update(budgeted=budgeted)


def _accounts(tenant: Tenant) -> QuerySet[LedgerAccount]:
    accounts = LedgerAccount.objects.filter(tenant=tenant, kind__in=_LOCKED, currency=tenant.currency)
    return accounts.order_by("kind")  # the order in which entries lock accounts: any other order could deadlock


def _balance(accounts: Iterable[LedgerAccount]) -> Balance:
    found = {account.kind: account for account in accounts}
    credit, held, receivable = (found.get(kind, LedgerAccount()) for kind in _LOCKED)
    return Balance(credit.balance_micros, held.balance_micros, receivable.balance_micros, credit.credit_limit_micros)


def _create(tenant: Tenant, sides: Iterable[Side]) -> None:
    LedgerAccount.objects.bulk_create(
        (LedgerAccount(tenant=tenant, kind=kind, meter=meter, currency=tenant.currency) for kind, meter in sides),
        ignore_conflicts=True,
    )
