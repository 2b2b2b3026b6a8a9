"""Credit notes: what a final statement said wrongly, told by a document of its own, final and numbered at once."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db import transaction

from billing.invoices.corrections import final_statement_of, usage_correct
from billing.invoices.models import Statement
from billing.invoices.statements import draw_up, number
from billing.usage.models import Charge, UsageRecord
from core.errors import DomainError
from tenants.models import Tenant


class CreditNoteInvalid(DomainError):
    """There is nothing here that a credit note could correct."""

    code, http_status = "credit_note_invalid", 409


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """A usage record of the statement, and the quantity that it should have said."""

    record: UsageRecord
    quantity: Decimal


@transaction.atomic
def credit_note_issue(
    *, statement: Statement, rights: list[Right], reason: str, author: str, note_id: uuid.UUID, now: datetime
) -> Statement:
    """Corrects usage that is on a final statement, and tells it by a credit note with its tax and number.

    All or nothing; the same `note_id` again changes nothing. Raises `CreditNoteInvalid`, and what `usage_correct` does.
    """
    Tenant.objects.select_for_update(no_key=True).get(pk=statement.tenant_id)
    if made := Statement.objects.filter(pk=note_id).first():
        return made
    statement = Statement.objects.select_related("tenant").get(pk=statement.pk)
    if statement.kind != Statement.Kind.STATEMENT or statement.state != Statement.State.FINAL or not rights:
        raise CreditNoteInvalid("a credit note corrects usage that is on a final statement")
    note = Statement.objects.create(
        id=note_id,
        tenant=statement.tenant,
        kind=Statement.Kind.CREDIT_NOTE,
        corrects=statement,
        currency=statement.currency,
        time_zone=statement.time_zone,
        period_start=statement.period_start,
        period_end=statement.period_end,
        # As the statement was: the tax of that day, to whom it was billed.
        billed_to=statement.billed_to,
        tax_name=statement.tax_name,
        tax_rate=statement.tax_rate,
        made_at=now,
    )
    for position, right in enumerate(rights):
        usage_correct(
            record=right.record,
            quantity=right.quantity,
            key=f"{note_id}/{position}",
            reason=reason,
            author=author,
            credit_note=note,
            now=now,
        )
    return number(draw_up(note, now), now=now)


@transaction.atomic
def usage_put_right(
    *, record: UsageRecord, quantity: Decimal, key: uuid.UUID, reason: str, author: str, now: datetime
) -> tuple[UsageRecord, Statement | None]:
    """Corrects a record wherever it stands: by a credit note if its month is final, which is returned then too.

    The same `key` again changes nothing. Raises what `usage_correct` does.
    """
    Tenant.objects.select_for_update(no_key=True).get(
        pk=record.tenant_id
    )  # so that its month isn't made final meanwhile
    charge = Charge.objects.select_related("usage_record").filter(usage_record=record, kind=Charge.Kind.USAGE).first()
    note = Statement.objects.filter(pk=key).first()
    final = final_statement_of(charge) if charge and note is None else None
    if final is not None:
        right = Right(record=record, quantity=quantity)
        note = credit_note_issue(statement=final, rights=[right], reason=reason, author=author, note_id=key, now=now)
    if note is not None:
        return UsageRecord.objects.get(idempotency_key=f"correction/{key}/0"), note
    made = usage_correct(record=record, quantity=quantity, key=str(key), reason=reason, author=author, now=now)
    return made, None
