"""Corrects what was measured wrongly: a new record with the difference, charged by the terms of the first.

Nothing that was recorded or charged changes. A correction's charge is what it makes to the month's cost that the
month's sum is right, with one rounding: after any number of corrections, charges differ from the price of the right
quantities by half a micro-unit each at most.
"""

import uuid
from datetime import datetime
from decimal import Decimal

from django.db import transaction
from django.db.models import Q, Sum

from billing.invoices.models import Statement
from billing.ledger.accounts import balance_lock
from billing.ledger.holds import held_micros
from billing.ledger.postings import charge_correct
from billing.money import AMOUNT_MICROS_MAX, EXACT, from_micros, to_micros
from billing.pricing.rating import Tariff
from billing.usage.models import Charge, UsageRecord
from billing.usage.months import month_take
from billing.usage.settlement import cap_of
from core.audit import audit_record
from core.errors import DomainError
from tenants.models import Tenant

_QUANTITY_MAX = Decimal(10) ** 23
_PLACES = Decimal("1e-15")
_KEY_MAX = 80
# Names a correction for its ledger transaction; never to be changed, since it is what makes a repeat harmless.
_NAMESPACE = uuid.UUID("0f3b8c52-9a54-4a0e-8a35-2f5a8c1a6d77")


class CorrectionInvalid(DomainError):
    """This can't be corrected so."""

    code = "correction_invalid"


class CorrectionKeyReused(DomainError):
    """This key names another correction: take a new one."""

    code, http_status = "correction_key_reused", 422


class StatementIsFinal(DomainError):
    """The usage is on a final statement: correct it by a credit note."""

    code, http_status = "statement_final", 409


@transaction.atomic
def usage_correct(
    *,
    record: UsageRecord,
    key: str,
    reason: str,
    author: str,
    difference: Decimal | None = None,
    quantity: Decimal | None = None,
    credit_note: Statement | None = None,
    now: datetime,
) -> UsageRecord:
    """Corrects a record by a `difference`, or to the `quantity` that is right; returns the correcting record.

    The `author`, named as in the audit log, goes on record there. The same `key` again changes nothing. What is on a
    final statement takes a credit note for that statement, which then has the charge. Raises `CorrectionInvalid`,
    `CorrectionKeyReused`, `StatementIsFinal`.
    """
    if (difference is None) == (quantity is None):
        raise ValueError("either a difference or a quantity")
    if not 0 < len(key) <= _KEY_MAX:
        raise CorrectionInvalid(f"a key has 1 to {_KEY_MAX} characters", param="key")
    if not reason.strip() or len(reason) > 200 or not reason.isprintable():
        raise CorrectionInvalid("a correction has a reason, of at most 200 printable characters", param="reason")
    if record.corrects_id is not None:
        raise CorrectionInvalid("this is a correction itself: correct the first record")
    # In the order of `statement_final`, which waits until this is told or not.
    Tenant.objects.select_for_update(no_key=True).get(pk=record.tenant_id)
    balance_lock(record.tenant)
    idempotency_key = f"correction/{key}"
    if made := UsageRecord.objects.filter(idempotency_key=idempotency_key).first():
        if made.corrects_id != record.pk:
            raise CorrectionKeyReused
        return made
    right_so_far = quantity_of(record)
    if difference is None:
        assert quantity is not None  # by the first check
        difference = EXACT.subtract(_checked(quantity), right_so_far)
    change = _checked(difference)
    if not change:
        raise CorrectionInvalid(f"it is {right_so_far.normalize():f} already", param="quantity")
    if EXACT.add(right_so_far, change) < 0:
        raise CorrectionInvalid(f"of {right_so_far.normalize():f} no more than all can be taken back", param="quantity")
    charge = (
        Charge.objects.select_related("rate__price_book", "usage_record")
        .filter(usage_record=record, kind=Charge.Kind.USAGE)
        .first()
    )
    if charge is not None:
        _check_statement(charge, credit_note)
    correction = UsageRecord.objects.create(
        id=uuid.uuid4(),
        idempotency_key=idempotency_key,
        tenant_id=record.tenant_id,
        project_id=record.project_id,
        job_id=record.job_id,
        meter=record.meter,
        quantity=change,
        dimensions=record.dimensions,
        source="correction",
        corrects=record,
        reason=reason,
        # When it was used, so that reports by day have the right sum.
        occurred_at=record.occurred_at,
    )
    if charge is not None:
        _charge(correction, charge, credit_note, f"{reason} ({author})"[:200], now)
    audit_record(
        actor=author,
        action="usage.correct",
        subject=str(record.pk),
        tenant=record.tenant,
        details={"correction": str(correction.pk), "difference": str(change), "reason": reason},
        now=now,
    )
    return correction


def quantity_of(record: UsageRecord) -> Decimal:
    """What a record says with all its corrections."""
    corrected = record.corrections.aggregate(sum=Sum("quantity"))["sum"] or Decimal(0)
    return EXACT.add(record.quantity, corrected)


def _checked(number: Decimal) -> Decimal:
    if not number.is_finite() or abs(number) >= _QUANTITY_MAX or number != number.quantize(_PLACES, context=EXACT):
        raise CorrectionInvalid(f"a quantity has at most 23 digits and 15 places; {number} is none", param="quantity")
    return number


def final_statement_of(charge: Charge) -> Statement | None:
    """The final statement of the month in which a charge was written, if it is final."""
    return Statement.objects.filter(
        tenant=charge.usage_record.tenant_id,
        kind=Statement.Kind.STATEMENT,
        state=Statement.State.FINAL,
        period_start__lte=charge.created_at,
        period_end__gt=charge.created_at,
    ).first()


def _check_statement(charge: Charge, credit_note: Statement | None) -> None:
    final = final_statement_of(charge)
    if credit_note is None and final is not None:
        raise StatementIsFinal(f"statement {final.number} is final: correct it by a credit note for it")
    if credit_note is not None and (
        credit_note.kind != Statement.Kind.CREDIT_NOTE or final is None or credit_note.corrects_id != final.pk
    ):
        raise CorrectionInvalid("the credit note is not for the statement that has this charge")


def _charge(
    correction: UsageRecord, first: Charge, credit_note: Statement | None, description: str, now: datetime
) -> None:
    tariff = Tariff.of(first.rate)
    used_before = month_take(tenant=correction.tenant, tariff=tariff, amount=correction.quantity, now=first.created_at)
    amount = tariff.correction_micros(correction.quantity, used_before=used_before, discount=first.discount)
    cap = _cap_change(correction, amount)
    if max(abs(amount), abs(amount + cap)) > AMOUNT_MICROS_MAX:
        raise CorrectionInvalid("it would cost more than an account can hold", param="quantity")
    made = charge_correct(
        project=correction.project,
        meter=correction.meter,
        amount_micros=amount + cap,
        reference=uuid.uuid5(_NAMESPACE, correction.idempotency_key),
        now=now,
        description=description,
    )
    assert made is not None  # the record is new, and its key names the transaction
    charge = Charge(
        id=uuid.uuid4(),
        usage_record=correction,
        transaction=made,
        kind=Charge.Kind.CORRECTION,
        rate=first.rate,
        contract_id=first.contract_id,
        used_before=used_before,
        discount=first.discount,
        amount_micros=amount,
        list_micros=_share(first, correction.quantity),
        currency=made.currency,
        statement=credit_note,
        created_at=now,
    )
    Charge.objects.bulk_create([charge, *([cap_of(charge, cap)] if cap else [])])


def _share(first: Charge, change: Decimal) -> int | None:
    """Of what the list would have asked for the first record, the part that a change is of it."""
    whole = first.usage_record.quantity
    if first.list_micros is None or not whole:
        return first.list_micros
    return to_micros(EXACT.divide(EXACT.multiply(from_micros(first.list_micros), change), whole))


def _cap_change(correction: UsageRecord, amount: int) -> int:
    """What to let off of a job besides what was, so that it costs its hold at most; above zero, what no longer is."""
    if correction.job_id is None:
        return 0
    of_job = Charge.objects.filter(usage_record__job_id=correction.job_id).order_by()
    is_cap = Q(kind=Charge.Kind.CAP)
    sums = of_job.aggregate(capped=Sum("amount_micros", filter=is_cap), rated=Sum("amount_micros", filter=~is_cap))
    over = (sums["rated"] or 0) + amount - held_micros(correction.job_id)
    return -max(0, over) - (sums["capped"] or 0)
