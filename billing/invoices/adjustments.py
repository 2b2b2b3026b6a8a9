"""Adjustments and write-offs: amounts without usage, each with a reason and an author."""

from datetime import datetime
from uuid import UUID

from django.db import transaction

from billing.ledger.accounts import balance_lock
from billing.ledger.models import Adjustment, Transaction
from billing.ledger.postings import balance_adjust, debt_write_off
from billing.money import AMOUNT_MICROS_MAX, format_micros
from billing.usage.models import Charge
from core.errors import DomainError
from tenants.models import Project, Tenant

_REASON_CHARS_MAX = 200


class AdjustmentInvalid(DomainError, code="adjustment_invalid"):
    """An adjustment needs a reason and an amount that isn't zero.

    Give a reason, and an amount that isn't zero.
    """


class ChargeNotFound(DomainError, code="charge_not_found", http_status=404):
    """The tenant has no such charge.

    Take the charge's id from the statement's line.
    """


class NothingOwed(DomainError, code="nothing_owed", http_status=409):
    """The tenant owes nothing.

    Nothing is to be done: there is no debt to record a payment for.
    """


@transaction.atomic
def adjustment_make(
    *,
    tenant: Tenant,
    amount_micros: int,
    reason: str,
    author: str,
    reference: UUID,
    now: datetime,
    project: Project | None = None,
    charge: Charge | None = None,
) -> Adjustment | None:
    """Charge an amount, or pay it if it is below zero. None if done before. Raises `AdjustmentInvalid`."""
    if not 0 < abs(amount_micros) <= AMOUNT_MICROS_MAX:
        highest = format_micros(AMOUNT_MICROS_MAX, tenant.currency)
        raise AdjustmentInvalid(f"an amount must not be zero, nor more than {highest}", param="amount")
    row = Adjustment(
        tenant=tenant,
        kind=Adjustment.Kind.DEBIT if amount_micros > 0 else Adjustment.Kind.CREDIT,
        amount_micros=amount_micros,
        reason=_checked_reason(reason),
        author=author,
        project=charge.usage_record.project if charge else project,
        charge=charge,
    )
    return adjustment_post(row, reference=reference, now=now)


@transaction.atomic
def write_off(*, tenant: Tenant, reason: str, author: str, reference: UUID, now: datetime) -> Adjustment | None:
    """Write off all that a tenant owes. None if done before. Raises `AdjustmentInvalid`, `NothingOwed`."""
    row = Adjustment(tenant=tenant, kind=Adjustment.Kind.WRITE_OFF, reason=_checked_reason(reason), author=author)
    row.amount_micros = -balance_lock(tenant).owed
    posted = debt_write_off(tenant=tenant, reference=reference, now=now, description=row.reason)
    done = Transaction.objects.filter(reference=reference, kind=Transaction.Kind.WRITE_OFF)
    if posted is None and not done.exists():
        raise NothingOwed(f"{tenant} owes nothing")
    return _recorded(row, posted)


def adjustment_post(row: Adjustment, *, reference: UUID, now: datetime) -> Adjustment | None:
    """Move an adjustment's amount and write the adjustment; None if done before."""
    posted = balance_adjust(
        tenant=row.tenant,
        project=row.project,
        amount_micros=row.amount_micros,
        reference=reference,
        now=now,
        description=row.reason,
    )
    return _recorded(row, posted)


def _recorded(row: Adjustment, posted: Transaction | None) -> Adjustment | None:
    if posted is None:
        return None
    row.transaction, row.currency, row.created_at = posted, posted.currency, posted.created_at
    row.author = row.author[:200]
    row.save(force_insert=True)
    return row


def charge_get(*, tenant: Tenant, charge_id: UUID) -> Charge:
    """Return one of a tenant's charges. Raises `ChargeNotFound`."""
    charges = Charge.objects.select_related("usage_record__project")
    if found := charges.filter(pk=charge_id, usage_record__tenant=tenant).first():
        return found
    raise ChargeNotFound


def _checked_reason(reason: str) -> str:
    """Return the reason without outer spaces. Raises `AdjustmentInvalid`."""
    reason = reason.strip()
    if not reason or len(reason) > _REASON_CHARS_MAX:
        raise AdjustmentInvalid(f"a reason must have 1 to {_REASON_CHARS_MAX} characters", param="reason")
    return reason
