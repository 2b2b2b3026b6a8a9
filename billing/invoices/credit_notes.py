"""Credit notes: documents that correct a final statement. Each is final and numbered as soon as it is issued."""

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import transaction

from billing.invoices.corrections import correction_record, final_statement_of, first_charge_of
from billing.invoices.models import Statement
from billing.invoices.statements import draw_up, number
from billing.usage.models import UsageRecord
from core.errors import DomainError
from tenants.models import Tenant

# A credit note has the recipient and the tax of its statement's day.
_COPIED = ("tenant", "currency", "time_zone", "period_start", "period_end", "billed_to", "tax_name", "tax_rate")


class CreditNoteInvalid(DomainError, code="credit_note_invalid", http_status=409):
    """A credit note can't correct this.

    Read the message for what a credit note can correct here.
    """


@transaction.atomic
def credit_note_issue(
    *,
    statement: Statement,
    record: UsageRecord,
    quantity: Decimal,
    reason: str,
    author: str,
    note_id: uuid.UUID,
    now: datetime,
) -> Statement:
    """Correct a record on a final statement by a numbered credit note. The same `note_id` again changes nothing."""
    Tenant.objects.select_for_update(no_key=True).get(pk=statement.tenant_id)
    if existing := Statement.objects.filter(pk=note_id).first():
        return existing
    statement = Statement.objects.select_related("tenant").get(pk=statement.pk)
    if statement.kind != Statement.Kind.STATEMENT or statement.state != Statement.State.FINAL:
        raise CreditNoteInvalid("a credit note must correct usage on a final statement")
    copied = {name: getattr(statement, name) for name in _COPIED}
    kind = Statement.Kind.CREDIT_NOTE
    note = Statement.objects.create(id=note_id, kind=kind, corrects=statement, made_at=now, **copied)
    terms: dict[str, Any] = {"reason": reason, "author": author, "credit_note": note, "now": now}
    correction_record(record=record, quantity=quantity, key=f"{note_id}/0", **terms)
    return number(draw_up(note, now), now=now)


@transaction.atomic
def usage_correct(
    *, record: UsageRecord, quantity: Decimal, key: uuid.UUID, reason: str, author: str, now: datetime
) -> tuple[UsageRecord, Statement | None]:
    """Correct a record, on a final statement by a credit note, and return both. The same `key` changes nothing."""
    # The lock keeps the month's statement from becoming final meanwhile.
    Tenant.objects.select_for_update(no_key=True).get(pk=record.tenant_id)
    terms: dict[str, Any] = {"record": record, "quantity": quantity, "reason": reason, "author": author, "now": now}
    charge = first_charge_of(record)
    note = Statement.objects.filter(pk=key).first()
    final = final_statement_of(charge) if charge and note is None else None
    if final is not None:
        note = credit_note_issue(statement=final, note_id=key, **terms)
    if note is not None:
        return UsageRecord.objects.get(idempotency_key=f"correction/{key}/0"), note
    return correction_record(key=str(key), **terms), None
