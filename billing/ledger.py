"""Double entry in micro-units: grant, hold, post, void, charge.

Each verb is named by the caller's `reference` and is harmless to repeat: the second call with the same reference
does nothing. A hold is settled once, by a post or by a void, whichever commits first.

    grant   funding -X   receivable +min(owed, X)   credit +rest
    hold    credit  -X   held   +X
    post    held    -X   credit +(X-C)   revenue +C      C <= X
    void    held    -X   credit +X
    charge  credit  -min(credit, C)   receivable -rest   revenue +C
"""

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from billing.models import Account, Entry, Transaction
from billing.money import format_micros
from tenants.errors import DomainError
from tenants.models import Tenant

Kind = Account.Kind


class InsufficientBalance(DomainError):
    """The balance doesn't cover what this request may cost: add credit."""

    code, type, http_status = "insufficient_quota", "insufficient_quota", 429


class HoldUnknown(Exception):
    """There is no hold of this reference: a defect of the caller."""


@transaction.atomic
def grant(*, tenant: Tenant, amount_micros: int, reference: UUID, at: datetime, description: str = "") -> bool:
    """Gives credit, of which what the tenant owes is paid first. False when this grant was made before.

    Raises `ValueError` unless the amount is positive.
    """
    if amount_micros <= 0:
        raise ValueError("a grant is a positive amount")
    owed = -_locked(tenant)[Kind.RECEIVABLE]
    paid = min(owed, amount_micros)
    movements = {Kind.FUNDING: -amount_micros, Kind.RECEIVABLE: paid, Kind.CREDIT: amount_micros - paid}
    return _record(tenant, Transaction.Kind.GRANT, reference, movements, at, description) is not None


# One statement, as every request waits for it. The row lock makes concurrent holds of a tenant queue here; the check
# constraint is what they can't pass.
_HOLD = """
WITH credit AS (
    SELECT id, balance_micros FROM billing_account
    WHERE tenant_id = %(tenant)s AND currency = %(currency)s AND kind = 'credit' FOR NO KEY UPDATE
), held AS (
    SELECT id FROM billing_account WHERE tenant_id = %(tenant)s AND currency = %(currency)s AND kind = 'held'
), made AS (
    INSERT INTO billing_transaction (id, tenant_id, kind, currency, reference, description, created_at)
    SELECT %(id)s, %(tenant)s, 'hold', %(currency)s, %(reference)s, '', %(at)s
    FROM credit CROSS JOIN held WHERE balance_micros >= %(amount)s
    ON CONFLICT DO NOTHING RETURNING id
), moved AS (
    INSERT INTO billing_entry (transaction_id, account_id, amount_micros)
    SELECT made.id, side.account_id, side.amount_micros
    FROM made CROSS JOIN (
        SELECT id, -%(amount)s::bigint FROM credit UNION ALL SELECT id, %(amount)s::bigint FROM held
    ) AS side (account_id, amount_micros)
    WHERE %(amount)s <> 0
)
SELECT EXISTS (SELECT FROM made), (SELECT balance_micros FROM credit CROSS JOIN held)
"""


def hold(*, tenant: Tenant, amount_micros: int, reference: UUID, at: datetime) -> bool:
    """Reserves credit. False when it was reserved before. Raises `InsufficientBalance`."""
    fields: dict[str, Any] = {"tenant": tenant.pk, "currency": tenant.currency, "reference": reference}
    with connection.cursor() as cursor:
        cursor.execute(_HOLD, {**fields, "amount": amount_micros, "at": at, "id": uuid.uuid4()})
        made, balance = cursor.fetchone()
    if made:
        return True
    if Transaction.objects.filter(reference=reference, kind=Transaction.Kind.HOLD).exists():
        return False
    if balance is None:  # the tenant's first: it has no accounts yet
        _accounts(tenant, [Kind.CREDIT, Kind.HELD])
        return hold(tenant=tenant, amount_micros=amount_micros, reference=reference, at=at)
    raise InsufficientBalance(
        f"this request may cost up to {format_micros(amount_micros, tenant.currency)}, and "
        f"{format_micros(balance, tenant.currency)} is available: add credit"
    )


def post(*, tenant: Tenant, amount_micros: int, reference: UUID, at: datetime) -> Transaction | None:
    """Charges `amount_micros` of a hold and returns the rest; None when the hold was settled before.

    Raises `HoldUnknown`, and `ValueError` for an amount below zero or above the hold.
    """
    held = held_micros(reference)
    if not 0 <= amount_micros <= held:
        raise ValueError(f"can't charge {amount_micros} of a hold of {held}")
    movements = {Kind.HELD: -held, Kind.CREDIT: held - amount_micros, Kind.REVENUE: amount_micros}
    return _record(tenant, Transaction.Kind.POST, reference, movements, at)


def void(*, tenant: Tenant, reference: UUID, at: datetime) -> bool:
    """Returns a hold whole; False when it was settled before. Raises `HoldUnknown`."""
    held = held_micros(reference)
    movements = {Kind.HELD: -held, Kind.CREDIT: held}
    return _record(tenant, Transaction.Kind.VOID, reference, movements, at) is not None


@transaction.atomic
def charge(
    *, tenant: Tenant, amount_micros: int, reference: UUID, at: datetime, description: str = ""
) -> Transaction | None:
    """Charges what no hold was placed for: from credit as far as it goes, the rest is owed.

    None when this was charged before. Raises `ValueError` for an amount below zero.
    """
    if amount_micros < 0:
        raise ValueError("a charge is not negative")
    from_credit = min(_locked(tenant)[Kind.CREDIT], amount_micros)
    movements = {
        Kind.CREDIT: -from_credit,
        Kind.RECEIVABLE: from_credit - amount_micros,
        Kind.REVENUE: amount_micros,
    }
    return _record(tenant, Transaction.Kind.CHARGE, reference, movements, at, description)


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
    rows = Account.objects.filter(tenant=tenant, currency=tenant.currency)
    return {**dict.fromkeys(Kind.values, 0), **{row.kind: row.balance_micros for row in rows}}


def _locked(tenant: Tenant) -> dict[str, int]:
    """Balances of credit and receivable, locked in the order in which entries move them: no deadlock."""
    rows = Account.objects.select_for_update().filter(
        tenant=tenant, kind__in=(Kind.CREDIT, Kind.RECEIVABLE), currency=tenant.currency
    )
    found = dict(rows.order_by("kind").values_list("kind", "balance_micros"))
    return {Kind.CREDIT: 0, Kind.RECEIVABLE: 0, **found}


@transaction.atomic
def _record(
    tenant: Tenant,
    kind: Transaction.Kind,
    reference: UUID,
    movements: Mapping[Account.Kind, int],
    at: datetime,
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
        created_at=at,
    )
    Transaction.objects.bulk_create([row], ignore_conflicts=True)
    if not Transaction.objects.filter(id=row.id).exists():
        return None
    amounts = {kind: amount for kind, amount in movements.items() if amount}
    accounts = _accounts(tenant, list(amounts))
    # In one order everywhere, since the trigger locks each entry's account row: no deadlock.
    Entry.objects.bulk_create(
        Entry(transaction=row, account=accounts[kind], amount_micros=amounts[kind]) for kind in sorted(amounts)
    )
    return row


def _accounts(tenant: Tenant, kinds: list[Account.Kind]) -> dict[str, Account]:
    rows = Account.objects.filter(tenant=tenant, currency=tenant.currency, kind__in=kinds)
    found = {row.kind: row for row in rows}
    if missing := [kind for kind in kinds if kind not in found]:
        Account.objects.bulk_create(
            (Account(tenant=tenant, kind=kind, currency=tenant.currency) for kind in missing),
            ignore_conflicts=True,
        )
        return _accounts(tenant, kinds)
    return found
