"""Double entry in micro-units: grant, hold, post, void, charge, and what puts them right.

Each verb is named by the caller's `reference` and is harmless to repeat: the second call with the same reference
does nothing. A hold is settled once, by a post or by a void, whichever commits first.

    grant      funding     -X   receivable +min(owed, X)   credit +rest
    hold       credit      -X   held   +X
    post       held        -X   credit +(X-C)   revenue +C, by meter      C <= X
    void       held        -X   credit +X
    charge     credit      -min(credit and its limit, C)   receivable -rest   revenue +C
    correct    as a charge; below zero, as a grant out of revenue
    adjust     as a charge to adjustments; below zero, as a grant out of them
    tax        as a charge to tax
    expire     credit      -X   expired +X
    write off  receivable  +owed   credit +what is below zero, less held   write_off -both

`credit` may go below zero as far as its account's limit: that is postpaid. What is left of each grant is kept beside
the accounts (`billing.ledger.grants`): together it is credit and held, unless the tenant is in debt. What counts towards
budgets (`billing.ledger.budget_months`) is counted here, in the same transaction and under the same locks.
"""

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import QuerySet, Sum

from billing.ledger.budget_months import budgets_hold, budgets_settle, budgets_spend
from billing.ledger.grants import drawn, granted
from billing.ledger.models import CreditGrant, Entry, LedgerAccount, Transaction
from billing.money import AMOUNT_MICROS_MAX, format_micros
from core.errors import DomainError
from core.pipeline import PipelinedQuery, Query, run_query
from tenants.models import ApiKey, Project, Tenant

Kind = LedgerAccount.Kind
# An account of a tenant: its kind, and of revenue the meter.
Side = tuple[LedgerAccount.Kind, str]
_LOCKED = (Kind.CREDIT, Kind.HELD, Kind.RECEIVABLE)


class InsufficientBalance(DomainError):
    """The balance doesn't cover what this request may cost: add credit."""

    code, type, http_status = "insufficient_quota", "insufficient_quota", 429


class CreditLimitBelowDebt(DomainError):
    """The tenant has used more than this limit already."""

    code, http_status = "credit_limit_below_debt", 409


class HoldUnknown(Exception):
    """There is no hold of this reference: a defect of the caller."""


@transaction.atomic
def grant(
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
    """Gives credit, of which what the tenant owes is paid first. False when this grant was made before.

    Raises `ValueError` unless the amount is 1 to `AMOUNT_MICROS_MAX` and it expires later than `at`.
    """
    if not 0 < amount_micros <= AMOUNT_MICROS_MAX:
        raise ValueError(f"a grant is a positive amount of at most {AMOUNT_MICROS_MAX} micros")
    if expires_at is not None and expires_at <= now:
        raise ValueError("a grant expires later than it is made")
    made = _give(tenant, Transaction.Kind.GRANT, (Kind.FUNDING, ""), amount_micros, reference, now, description)
    if made is None:
        return False
    granted(made, category=category, priority=priority, expires_at=expires_at)
    return True


# One statement, as every request waits for it. The row lock makes concurrent holds of a tenant queue here; the check
# constraint is what they can't pass.
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


@transaction.atomic(savepoint=False)
def hold(
    *,
    tenant: Tenant,
    amount_micros: int,
    reference: UUID,
    now: datetime,
    project: Project | None = None,
    api_key: ApiKey | None = None,
) -> bool:
    """`hold_take` on a round trip of its own."""
    whose: dict[str, Any] = {"tenant": tenant, "project": project, "api_key": api_key}
    return run_query(hold_take(**whose, amount_micros=amount_micros, reference=reference, now=now))


def hold_take(
    *,
    tenant: Tenant,
    amount_micros: int,
    reference: UUID,
    now: datetime,
    project: Project | None = None,
    api_key: ApiKey | None = None,
) -> PipelinedQuery[bool]:
    """Reserves credit, and what the budgets of tenant, project and key have left. False when it was reserved before.

    Raises `InsufficientBalance`, `BudgetExceeded`; then the caller's transaction can't commit.
    """
    if amount_micros < 0:
        raise ValueError("a hold is not negative")
    fields: dict[str, Any] = {"tenant": tenant.pk, "currency": tenant.currency, "reference": reference}
    ((made, available, budgeted),) = yield Query(
        _HOLD, {**fields, "amount": amount_micros, "now": now, "id": uuid.uuid4()}
    )
    if made:
        if budgeted and amount_micros:
            budgets_hold(
                tenant=tenant,
                project=project,
                api_key=api_key,
                amount_micros=amount_micros,
                reference=reference,
                now=now,
            )
        return True
    if Transaction.objects.filter(reference=reference, kind=Transaction.Kind.HOLD).exists():
        return False
    if available is None:  # the tenant's first: it has no accounts yet
        _accounts(tenant, [(Kind.CREDIT, ""), (Kind.HELD, "")])
        return hold(
            tenant=tenant, amount_micros=amount_micros, reference=reference, now=now, project=project, api_key=api_key
        )
    raise InsufficientBalance(
        f"this request may cost up to {format_micros(amount_micros, tenant.currency)}, and "
        f"{format_micros(available, tenant.currency)} is available: add credit"
    )


@transaction.atomic
def post(*, tenant: Tenant, amounts: Mapping[str, int], reference: UUID, now: datetime) -> Transaction | None:
    """Charges `amounts`, micro-units by meter, of a hold and returns the rest; None when the hold was settled before.

    Raises `HoldUnknown`, and `ValueError` for an amount below zero or a sum above the hold.
    """
    locked(tenant)  # the accounts before the settlement that there is one of, as in every verb
    held, amount = held_micros(reference), sum(amounts.values())
    if amount > held or min(amounts.values(), default=0) < 0:
        raise ValueError(f"can't charge {dict(amounts)} of a hold of {held}")
    revenue = {(Kind.REVENUE, meter): micros for meter, micros in amounts.items()}
    movements = {(Kind.HELD, ""): -held, (Kind.CREDIT, ""): held - amount, **revenue}
    posted = _record(tenant, Transaction.Kind.POST, reference, movements, now)
    if posted is not None:
        drawn(posted, amount_micros=amount)
        budgets_settle(reference, spent_micros=amount, now=now)
    return posted


@transaction.atomic
def void(*, tenant: Tenant, reference: UUID, now: datetime) -> bool:
    """Returns a hold whole; False when it was settled before. Raises `HoldUnknown`."""
    locked(tenant)
    held = held_micros(reference)
    movements = {(Kind.HELD, ""): -held, (Kind.CREDIT, ""): held}
    if _record(tenant, Transaction.Kind.VOID, reference, movements, now) is None:
        return False
    budgets_settle(reference, spent_micros=0, now=now)
    return True


@transaction.atomic
def charge(
    *,
    project: Project,
    meter: str,
    amount_micros: int,
    reference: UUID,
    now: datetime,
    description: str = "",
) -> Transaction | None:
    """Charges what no hold was placed for: from credit as far as it goes, the rest is owed.

    None when this was charged before. Raises `ValueError` for an amount below zero.
    """
    if amount_micros < 0:
        raise ValueError("a charge is not negative")
    into = (Kind.REVENUE, meter)
    made = _take(project.tenant, Transaction.Kind.CHARGE, into, amount_micros, reference, now, description)
    return _counted(made, project.tenant, project, amount_micros)


@transaction.atomic
def correct(
    *, project: Project, meter: str, amount_micros: int, reference: UUID, now: datetime, description: str = ""
) -> Transaction | None:
    """Charges the difference that a correction makes, or gives it back if it is below zero. None if done before."""
    tenant, kind, side = project.tenant, Transaction.Kind.CORRECT, (Kind.REVENUE, meter)
    made = _take_or_refund(tenant, kind, side, amount_micros, reference, now, description)
    return _counted(made, tenant, project, amount_micros)


@transaction.atomic
def adjust(
    *,
    tenant: Tenant,
    amount_micros: int,
    reference: UUID,
    now: datetime,
    description: str = "",
    project: Project | None = None,
) -> Transaction | None:
    """Takes an amount by hand, or gives it if it is below zero. None if done before. Raises `ValueError` for 0, and
    beyond `AMOUNT_MICROS_MAX`."""
    if not 0 < abs(amount_micros) <= AMOUNT_MICROS_MAX:
        raise ValueError(f"an adjustment is not zero, and at most {AMOUNT_MICROS_MAX} micros")
    kind, side = Transaction.Kind.ADJUST, (Kind.ADJUSTMENTS, "")
    made = _take_or_refund(tenant, kind, side, amount_micros, reference, now, description)
    return _counted(made, tenant, project, amount_micros)


@transaction.atomic
def tax(
    *, tenant: Tenant, amount_micros: int, reference: UUID, now: datetime, description: str = ""
) -> Transaction | None:
    """Charges the tax of a statement, or gives it back if it is below zero. None if done before."""
    kind, side = Transaction.Kind.TAX, (Kind.TAX, "")
    return _take_or_refund(tenant, kind, side, amount_micros, reference, now, description)


@transaction.atomic
def write_off(*, tenant: Tenant, reference: UUID, now: datetime, description: str = "") -> Transaction | None:
    """Gives up all that a tenant owes. None if done before, or if it owes nothing."""
    standing = locked(tenant)
    if not standing.owed:
        return None
    movements = {
        (Kind.RECEIVABLE, ""): -standing.receivable,
        (Kind.CREDIT, ""): standing.owed + standing.receivable,
        (Kind.WRITE_OFF, ""): -standing.owed,
    }
    return _record(tenant, Transaction.Kind.WRITE_OFF, reference, movements, now, description)


@transaction.atomic
def expire(*, tenant: Tenant, amount_micros: int, reference: UUID, now: datetime) -> Transaction | None:
    """Takes credit that ran out; for `billing.ledger.grants`, which knows how much of it is left."""
    movements = {(Kind.CREDIT, ""): -amount_micros, (Kind.EXPIRED, ""): amount_micros}
    return _record(tenant, Transaction.Kind.EXPIRE, reference, movements, now, "credit that ran out")


@transaction.atomic
def credit_limit_set(*, tenant: Tenant, limit_micros: int) -> None:
    """How far a tenant's credit may go below zero: 0 is prepaid. Raises `CreditLimitBelowDebt`, `ValueError`."""
    if not 0 <= limit_micros <= AMOUNT_MICROS_MAX:
        raise ValueError(f"a credit limit is 0 to {AMOUNT_MICROS_MAX} micros")
    account = _accounts(tenant, [(Kind.CREDIT, "")])[Kind.CREDIT, ""]
    try:
        with transaction.atomic():
            LedgerAccount.objects.filter(pk=account.pk).update(credit_limit_micros=limit_micros)
    except IntegrityError as error:
        owed = -balance_of(tenant).credit
        raise CreditLimitBelowDebt(
            f"{tenant} has used {format_micros(owed, tenant.currency)} of it already: the limit can't be below that"
        ) from error


def budgeted_set(*, tenant: Tenant, budgeted: bool) -> None:
    """Says whether holds of a tenant count towards budgets; until the transaction ends nobody else moves its money."""
    account = _accounts(tenant, [(Kind.CREDIT, ""), (Kind.HELD, "")])[Kind.CREDIT, ""]
    locked(tenant)
    LedgerAccount.objects.filter(pk=account.pk).update(budgeted=budgeted)


def held_micros(reference: UUID) -> int:
    """What a hold reserved, whether or not it is settled by now. Raises `HoldUnknown`."""
    amounts = Entry.objects.filter(
        transaction__reference=reference, transaction__kind=Transaction.Kind.HOLD, account__kind=Kind.HELD
    ).values_list("amount_micros", flat=True)
    found = list(amounts)
    if not found:
        if Transaction.objects.filter(reference=reference, kind=Transaction.Kind.HOLD).exists():
            return 0  # a free request: its hold has no entries
        raise HoldUnknown(str(reference))
    return sum(found)


def balances(tenant: Tenant) -> dict[str, int]:
    """Micro-units by account kind, in the tenant's currency."""
    rows = LedgerAccount.objects.filter(tenant=tenant, currency=tenant.currency).order_by()
    sums = dict(rows.values_list("kind").annotate(Sum("balance_micros")))
    return {**dict.fromkeys(Kind.values, 0), **sums}


def _give(
    tenant: Tenant, kind: Transaction.Kind, out_of: Side, amount: int, reference: UUID, now: datetime, description: str
) -> Transaction | None:
    """To the tenant: what it owes is paid first."""
    paid = min(-locked(tenant).receivable, amount)
    movements = {out_of: -amount, (Kind.RECEIVABLE, ""): paid, (Kind.CREDIT, ""): amount - paid}
    return _record(tenant, kind, reference, movements, now, description)


def _refund(
    tenant: Tenant, kind: Transaction.Kind, out_of: Side, amount: int, reference: UUID, now: datetime, description: str
) -> Transaction | None:
    made = _give(tenant, kind, out_of, amount, reference, now, description)
    if made is not None:
        granted(made, category=CreditGrant.Category.REFUND)
    return made


def _take(
    tenant: Tenant, kind: Transaction.Kind, into: Side, amount: int, reference: UUID, now: datetime, description: str
) -> Transaction | None:
    """From the tenant: from credit as far as it and its limit go, the rest is owed."""
    standing = locked(tenant)
    from_credit = max(0, min(standing.credit + standing.limit, amount))
    movements = {(Kind.CREDIT, ""): -from_credit, (Kind.RECEIVABLE, ""): from_credit - amount, into: amount}
    made = _record(tenant, kind, reference, movements, now, description)
    if made is not None:
        drawn(made, amount_micros=from_credit)
    return made


def _take_or_refund(
    tenant: Tenant, kind: Transaction.Kind, side: Side, amount: int, reference: UUID, now: datetime, description: str
) -> Transaction | None:
    if amount >= 0:
        return _take(tenant, kind, side, amount, reference, now, description)
    return _refund(tenant, kind, side, -amount, reference, now, description)


def _counted(made: Transaction | None, tenant: Tenant, project: Project | None, amount: int) -> Transaction | None:
    if made is not None and amount:
        budgets_spend(tenant=tenant, project=project, amount_micros=amount, now=made.created_at)
    return made


class Balance(NamedTuple):
    """A tenant's balances, and how far its credit may go below zero."""

    credit: int
    held: int
    receivable: int
    limit: int

    @property
    def owed(self) -> int:
        """On account and beyond it. What is held of an account is not owed yet."""
        return -self.receivable + max(0, -self.credit - self.held)

    @property
    def available(self) -> int:
        return self.credit + self.limit


def locked(tenant: Tenant) -> Balance:
    """How a tenant stands; until the transaction ends nobody else moves it."""
    found = _found(tenant, LedgerAccount.objects.select_for_update())
    if missing := [(kind, "") for kind in _LOCKED if kind not in found]:
        # A row that somebody adds while the others are waited for would be neither seen nor locked.
        _open(tenant, missing)
        found = _found(tenant, LedgerAccount.objects.select_for_update())
    return _balance(found)


def balance_of(tenant: Tenant) -> Balance:
    """How a tenant stands just now."""
    return _balance(_found(tenant, LedgerAccount.objects.all()))


def _found(tenant: Tenant, accounts: "QuerySet[LedgerAccount]") -> dict[str, LedgerAccount]:
    rows = accounts.filter(tenant=tenant, kind__in=_LOCKED, currency=tenant.currency)
    # In the order in which entries move them: no deadlock.
    return {row.kind: row for row in rows.order_by("kind")}


def _balance(found: Mapping[str, LedgerAccount]) -> Balance:
    credit, held, receivable = (found.get(kind, LedgerAccount()) for kind in _LOCKED)
    return Balance(
        credit=credit.balance_micros,
        held=held.balance_micros,
        receivable=receivable.balance_micros,
        limit=credit.credit_limit_micros,
    )


@transaction.atomic
def _record(
    tenant: Tenant,
    kind: Transaction.Kind,
    reference: UUID,
    movements: Mapping[Side, int],
    now: datetime,
    description: str = "",
) -> Transaction | None:
    """Writes a transaction with its entries; None when the unique indexes say that it is there already."""
    row = Transaction(
        id=uuid.uuid4(),
        tenant=tenant,
        kind=kind,
        currency=tenant.currency,
        reference=reference,
        description=description,
        created_at=now,
    )
    Transaction.objects.bulk_create([row], ignore_conflicts=True)
    if not Transaction.objects.filter(id=row.id).exists():
        return None
    amounts = {side: amount for side, amount in movements.items() if amount}
    accounts = _accounts(tenant, list(amounts))
    # In one order everywhere, since the trigger locks each entry's account row: no deadlock.
    Entry.objects.bulk_create(
        Entry(transaction=row, account=accounts[side], amount_micros=amounts[side]) for side in sorted(amounts)
    )
    return row


def _accounts(tenant: Tenant, sides: list[Side]) -> dict[Side, LedgerAccount]:
    rows = LedgerAccount.objects.filter(tenant=tenant, currency=tenant.currency, kind__in={kind for kind, _ in sides})
    found: dict[Side, LedgerAccount] = {(Kind(row.kind), row.meter): row for row in rows}
    if missing := [side for side in sides if side not in found]:
        # Its other accounts first, as whoever waits for a row that is being added may have them already: no deadlock.
        locked(tenant)
        _open(tenant, missing)
        return _accounts(tenant, sides)
    return found


def _open(tenant: Tenant, sides: Iterable[Side]) -> None:
    LedgerAccount.objects.bulk_create(
        (LedgerAccount(tenant=tenant, kind=kind, meter=meter, currency=tenant.currency) for kind, meter in sides),
        ignore_conflicts=True,
    )
