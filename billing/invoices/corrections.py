"""Corrections of usage: a new record with the difference, charged by the terms of the first record's charge.

A correction is charged the difference between the month's cost with the right sum and with the wrong one, rounded once.
After any number of corrections, the charges differ from the right price by at most half a micro-unit per correction.
"""

from datetime import datetime
from decimal import Decimal
from uuid import UUID, uuid5

from django.db import transaction
from django.db.models import Q, Sum

from billing.invoices.models import Statement
from billing.ledger.accounts import balance_lock
from billing.ledger.holds import held_micros
from billing.ledger.models import Transaction
from billing.ledger.postings import usage_charge
from billing.money import AMOUNT_MICROS_MAX, EXACT, from_micros, plain, to_micros
from billing.pricing.rating import Tariff
from billing.usage.models import Charge, UsageRecord
from billing.usage.months import month_take
from billing.usage.settlement import waiver_of
from core.audit import audit_record
from core.errors import DomainError
from core.text import is_line
from tenants.models import Tenant

_QUANTITY_MAX = Decimal(10) ** 23
_KEY_MAX = 80
# A correction has the time of use of its record, so that reports by day have the right sum.
_COPIED = ("tenant", "project", "job_id", "meter", "dimensions", "occurred_at")
# Never change it: a correction's key in this namespace is the ledger's reference, which makes a repeat harmless.
_NAMESPACE = UUID("0f3b8c52-9a54-4a0e-8a35-2f5a8c1a6d77")


class CorrectionInvalid(DomainError, code="correction_invalid"):
    """This correction is not possible.

    Read the message for what the record allows, and correct the quantity.
    """


class CorrectionKeyReused(DomainError, code="correction_key_reused", http_status=422):
    """This key was used for another correction: use a new one.

    Send the new correction under a new key.
    """


class StatementIsFinal(DomainError, code="statement_final", http_status=409):
    """The usage is on a final statement: correct it by a credit note.

    Draw up a credit note for the statement.
    """


@transaction.atomic
def correction_record(
    *,
    record: UsageRecord,
    quantity: Decimal,
    key: str,
    reason: str,
    author: str,
    credit_note: Statement | None = None,
    now: datetime,
) -> UsageRecord:
    """Correct a record's quantity; return the correcting record.

    The same `key` again changes nothing. Usage on a final statement needs a credit note for that statement, which then
    has the charge. Raises `CorrectionInvalid`, `CorrectionKeyReused`, `StatementIsFinal`.
    """
    if not 0 < len(key) <= _KEY_MAX:
        raise CorrectionInvalid(f"a key must have 1 to {_KEY_MAX} characters", param="key")
    if not reason.strip() or not is_line(reason, chars_max=200):
        raise CorrectionInvalid("a correction needs a reason of at most 200 printable characters", param="reason")
    if record.corrects_id is not None:
        raise CorrectionInvalid("this record is itself a correction: correct the first record")
    # The same lock order as `statement_final`, which waits until this correction is committed.
    Tenant.objects.select_for_update(no_key=True).get(pk=record.tenant_id)
    balance_lock(record.tenant)
    idempotency_key = f"correction/{key}"
    if existing := UsageRecord.objects.filter(idempotency_key=idempotency_key).first():
        if existing.corrects_id != record.pk:
            raise CorrectionKeyReused
        return existing
    corrected = quantity_of(record)
    change = _checked(EXACT.subtract(_checked(quantity), corrected))
    if not change:
        raise CorrectionInvalid(f"the record's quantity is {plain(corrected)} already", param="quantity")
    if quantity < 0:
        reason = f"cannot subtract {plain(-change)}: the record's quantity is {plain(corrected)}"
        raise CorrectionInvalid(reason, param="quantity")
    if charge := first_charge_of(record):
        _check_statement(charge, credit_note)
    correction = UsageRecord.objects.create(
        **{name: getattr(record, name) for name in _COPIED},
        idempotency_key=idempotency_key,
        quantity=change,
        source="correction",
        corrects=record,
        reason=reason,
    )
    if charge:
        _charge(correction, charge, credit_note, f"{reason} ({author})"[:200], now)
    details = {"correction": str(correction.pk), "difference": str(change), "reason": reason}
    subject = str(record.pk)
    audit_record(actor=author, action="usage.correct", subject=subject, tenant=record.tenant, details=details, now=now)
    return correction


def first_charge_of(record: UsageRecord) -> Charge | None:
    """Return the charge of a record before any correction; None if it had no price."""
    charges = Charge.objects.select_related("rate__price_book", "usage_record")
    return charges.filter(usage_record=record, kind=Charge.Kind.USAGE).first()


def quantity_of(record: UsageRecord) -> Decimal:
    """Return a record's quantity with all its corrections."""
    corrected = record.corrections.aggregate(sum=Sum("quantity"))["sum"] or Decimal(0)
    return EXACT.add(record.quantity, corrected)


def _checked(number: Decimal) -> Decimal:
    if (
        not number.is_finite()
        or abs(number) >= _QUANTITY_MAX
        or number != number.quantize(Decimal("1e-15"), context=EXACT)
    ):
        raise CorrectionInvalid(
            f"a quantity must have at most 23 digits before and 15 after the point, unlike {number}", param="quantity"
        )
    return number


def final_statement_of(charge: Charge) -> Statement | None:
    """Return the final statement of the month in which a charge was written; None if there is none yet."""
    statements = Statement.objects.filter(tenant=charge.usage_record.tenant_id, kind=Statement.Kind.STATEMENT)
    final = statements.filter(state=Statement.State.FINAL)
    return final.filter(period_start__lte=charge.created_at, period_end__gt=charge.created_at).first()


def _check_statement(charge: Charge, credit_note: Statement | None) -> None:
    final = final_statement_of(charge)
    if credit_note is None and final is not None:
        raise StatementIsFinal(f"statement {final.number} is final: issue a credit note for it")
    if credit_note is not None and (final is None or credit_note.corrects_id != final.pk):
        raise CorrectionInvalid("the credit note is not for the statement that has this charge")


def _charge(
    correction: UsageRecord, first: Charge, credit_note: Statement | None, description: str, now: datetime
) -> None:
    tariff = Tariff.of(first.rate)
    used_before = month_take(tenant=correction.tenant, tariff=tariff, amount=correction.quantity, now=first.created_at)
    amount = tariff.correction_micros(correction.quantity, used_before=used_before, discount=first.discount)
    waiver = _waiver_change(correction, amount)
    if max(abs(amount), abs(amount + waiver)) > AMOUNT_MICROS_MAX:
        raise CorrectionInvalid("the correction's amount is more than an account can hold", param="quantity")
    posted = usage_charge(
        kind=Transaction.Kind.CORRECT,
        project=correction.project,
        meter=correction.meter,
        amount_micros=amount + waiver,
        reference=uuid5(_NAMESPACE, correction.idempotency_key),
        now=now,
        description=description,
    )
    assert posted is not None  # the record is new, and its key names the transaction
    charge = Charge(
        usage_record=correction,
        transaction=posted,
        kind=Charge.Kind.CORRECTION,
        rate=first.rate,
        contract_id=first.contract_id,
        used_before=used_before,
        discount=first.discount,
        amount_micros=amount,
        list_micros=_share(first, correction.quantity),
        currency=posted.currency,
        statement=credit_note,
        created_at=now,
    )
    Charge.objects.bulk_create([charge, *([waiver_of(charge, waiver)] if waiver else [])])


def _share(first: Charge, change: Decimal) -> int | None:
    """Return the change's part of the first record's list price."""
    whole = first.usage_record.quantity
    if first.list_micros is None or not whole:
        return first.list_micros
    return to_micros(EXACT.divide(EXACT.multiply(from_micros(first.list_micros), change), whole))


def _waiver_change(correction: UsageRecord, amount: int) -> int:
    """Return the change of a job's waiver with which the job costs at most its hold.

    A change above zero takes back earlier waivers.
    """
    if correction.job_id is None:
        return 0
    of_job = Charge.objects.filter(usage_record__job_id=correction.job_id).order_by()
    is_waiver = Q(kind=Charge.Kind.WAIVER)
    sums = {"waived": Sum("amount_micros", filter=is_waiver), "rated": Sum("amount_micros", filter=~is_waiver)}
    summed = of_job.aggregate(**sums)
    excess = (summed["rated"] or 0) + amount - held_micros(correction.job_id)
    return -max(0, excess) - (summed["waived"] or 0)
