"""Statements, and corrections of what jobs were measured to use."""

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Any

from django import forms

from billing.money import EXACT, amount_text, format_micros
from easel.actions import fields
from easel.actions.action import ActionForm, Done, action, tenant_of
from easel.actions.subjects import STATEMENT, TENANT, USAGE_RECORD


class CorrectionForm(ActionForm):
    """Corrects the row, a usage record, or one that is chosen from the row's, a job's."""

    record: Any = forms.ModelChoiceField(queryset=None, label="Usage record", empty_label=None)
    quantity = fields.number("The quantity that is correct.", required=False, label="Correct quantity")
    difference = fields.number("Add this to the quantity instead; below zero: subtract it.", required=False)
    reason = fields.text("For the tenant's statement and the audit log.", max_length=200)
    token = fields.token(help_text="A UUID that makes a repeat harmless: the same one corrects once.")

    def prepare(self) -> None:
        from billing.invoices.corrections import quantity_of
        from billing.models import UsageRecord

        if isinstance(self.row, UsageRecord):
            del self.fields["record"]
            return
        record = self.fields["record"]
        record.queryset = UsageRecord.objects.filter(job_id=self.row.id, corrects=None).order_by("meter")
        record.label_from_instance = lambda one: f"{one.get_meter_display()}: {quantity_of(one).normalize():f} now"

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        if (given.get("quantity") is None) == (given.get("difference") is None) and not self.errors:
            raise forms.ValidationError("Give either the correct quantity or the difference.")
        return given


def _is_draft(row: Any) -> bool:
    return bool(tenant_of(row) is row or row.state == "draft")


@action(
    "statement.draft", label="Draft statement", permission="billing.add_transaction", subject=TENANT, applies=_is_draft
)
def draft(row: Any, actor: str, now: datetime) -> Done:
    """Draft the oldest month that is over and not final, or draft it again with what was written since."""
    from billing.invoices.documents import period_of
    from billing.invoices.statements import statement_draft

    draft = statement_draft(tenant_of(row), now=now)
    return Done(
        f"{draft.id}: {period_of(draft)}, {amount_text(draft.total_micros)} {draft.currency}",
        subject=draft.pk,
        answer={"id": str(draft.id)},
        show=draft,
    )


@action(
    "statement.final", label="Make final", permission="billing.add_transaction", subject=STATEMENT, applies=_is_draft
)
def final(statement: Any, actor: str, now: datetime) -> Done:
    """Tax and number a draft. A final statement never changes: a credit note corrects it."""
    from billing.invoices.documents import title_of
    from billing.invoices.statements import statement_final

    made = statement_final(statement, now=now)
    return Done(f"{title_of(made)} is final", subject=made.pk, details={"number": made.number})


def _has_usage(job: Any) -> bool:
    from billing.models import UsageRecord

    return UsageRecord.objects.filter(job_id=job.id).exists()


@action(
    "usage.correct",
    label="Correct usage",
    permission="billing.add_usagerecord",
    subject=USAGE_RECORD,
    form=CorrectionForm,
    applies=_has_usage,
    options={"record": None, "difference": "--by", "token": "--key"},
)
def correct_usage(
    row: Any,
    actor: str,
    now: datetime,
    *,
    quantity: Decimal | None,
    difference: Decimal | None,
    reason: str,
    token: uuid.UUID,
    record: Any = None,
) -> Done:
    """Correct what was measured; the difference is charged, or given back, by the terms of the first charge. A credit
    note corrects what is on a final statement.
    """
    from billing.invoices.corrections import quantity_of
    from billing.invoices.credit_notes import usage_correct
    from billing.invoices.documents import title_of

    record = record or row
    if quantity is None:
        assert difference is not None  # by the form
        quantity = EXACT.add(quantity_of(record), difference)
    # The verb writes the audit record itself, with the difference that it charged.
    made, note = usage_correct(record=record, key=token, quantity=quantity, reason=reason, author=actor, now=now)
    charged = sum(charge.amount_micros for charge in made.charges.all())
    money = format_micros(charged, record.tenant.currency)
    noted = f"; it is on {title_of(note)}, since the month's statement is final" if note else ""
    correct = quantity_of(record).normalize()
    more = "more" if charged >= 0 else "(given back)"
    return Done(f"{record.meter} is {correct:f}; {money} {more}{noted}", needs_record=False)
