"""Adjustments and write-offs: amounts without usage, each with a reason and an author."""

from datetime import datetime
from uuid import UUID

from django.db import transaction

from billing.invoices.models import Statement
from billing.ledger.accounts import balance_lock
from billing.ledger.models import Adjustment, Transaction
from billing.ledger.postings import balance_adjust, debt_write_off
from billing.money import AMOUNT_MICROS_MAX, format_micros
from billing.usage.models import Charge
from core.errors import DomainError
from tenants.models import Project, Tenant

_REASON_CHARS_MAX = 200


class AdjustmentInvalid(DomainError, code="adjustment_invalid"):
    """An adjustment needs a reason and an amount that isn't zero."""


class ChargeNotFound(DomainError, code="charge_not_found", http_status=404):
    """The tenant has no such charge."""


class NothingOwed(DomainError, code="nothing_owed", http_status=409):
    """The tenant owes nothing."""


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
    if charge is not None:
        project = charge.usage_record.project
    reason = _checked_reason(reason)
    posted = balance_adjust(
        tenant=tenant, amount_micros=amount_micros, reference=reference, now=now, description=reason, project=project
    )
    kind = Adjustment.Kind.DEBIT if amount_micros > 0 else Adjustment.Kind.CREDIT
    return adjustment_record(
        posted, kind=kind, amount_micros=amount_micros, reason=reason, author=author, project=project, charge=charge
    )


@transaction.atomic
def write_off(*, tenant: Tenant, reason: str, author: str, reference: UUID, now: datetime) -> Adjustment | None:
    """Write off all that a tenant owes. None if done before. Raises `AdjustmentInvalid`, `NothingOwed`."""
    reason = _checked_reason(reason)
    owed = balance_lock(tenant).owed
    posted = debt_write_off(tenant=tenant, reference=reference, now=now, description=reason)
    done = Transaction.objects.filter(reference=reference, kind=Transaction.Kind.WRITE_OFF)
    if posted is None and not done.exists():
        raise NothingOwed(f"{tenant} owes nothing")
    kind = Adjustment.Kind.WRITE_OFF
    return adjustment_record(posted, kind=kind, amount_micros=-owed, reason=reason, author=author)


def adjustment_record(
    posted: Transaction | None,
    *,
    kind: Adjustment.Kind,
    amount_micros: int,
    reason: str,
    author: str,
    project: Project | None = None,
    charge: Charge | None = None,
    statement: Statement | None = None,
) -> Adjustment | None:
    """Record author and reason of a ledger transaction; None if there is no new one."""
    if posted is None:
        return None
    return Adjustment.objects.create(
        tenant=posted.tenant,
        project=project,
        transaction=posted,
        kind=kind,
        amount_micros=amount_micros,
        currency=posted.currency,
        reason=reason,
        author=author[:200],
        charge=charge,
        statement=statement,
        created_at=posted.created_at,
    )


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
