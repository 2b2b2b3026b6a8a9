"""What is agreed with a tenant, on its page; and corrections of what its jobs were measured to use, on theirs."""

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django import forms

from billing.invoices.corrections import quantity_of
from billing.invoices.credit_notes import usage_correct
from billing.invoices.documents import title_of
from billing.models import PriceBook, UsageRecord
from billing.money import format_micros
from billing.pricing.contracts import (
    contract_at,
    contract_details,
    contract_end,
    contract_make,
    minimum_of,
)
from billing.pricing.price_books import price_book_publish, rates_details
from billing.pricing.price_files import rates_read
from core.errors import DomainError
from easel.jobs.models import Job
from easel.portal import cells
from easel.portal.pages import Act, ActForm, Done, Operator, Section
from tenants.models import Tenant


def _instant(label: str, help_text: str) -> forms.DateTimeField:
    return forms.DateTimeField(
        label=label,
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        input_formats=["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"],
        help_text=help_text,
    )


class ContractForm(ActForm):
    discount = forms.DecimalField(
        label="Discount in percent", initial=0, min_value=0, max_value=100, decimal_places=4, widget=forms.TextInput
    )
    minimum = forms.DecimalField(
        label="Minimum of a month",
        initial=0,
        min_value=0,
        decimal_places=6,
        help_text="In the tenant's currency: what a month's charges fall short of it is charged with its statement.",
        widget=forms.TextInput,
    )
    starts_at = _instant("From (UTC)", "Empty: from now on.")
    ends_at = _instant("Until (UTC)", "Empty: until it is ended.")
    prices = forms.CharField(
        required=False,
        label="Prices of its own",
        widget=forms.Textarea,
        help_text="As `easel price publish` has them: - {meter: image_unit, model: z-image, price: 0.0015}",
    )

    def clean_prices(self) -> Any:
        text = self.cleaned_data["prices"].strip()
        try:
            return rates_read(text) if text else ()
        except DomainError as error:
            raise forms.ValidationError(str(error)) from error


class EndForm(ActForm):
    ends_at = _instant("At (UTC)", "Empty: now.")


class CorrectionForm(ActForm):
    record = forms.ModelChoiceField(queryset=UsageRecord.objects.none(), label="What", empty_label=None)
    quantity = forms.DecimalField(
        label="Right quantity", min_value=0, max_digits=38, decimal_places=15, widget=forms.TextInput
    )
    reason = forms.CharField(max_length=200, help_text="For the tenant's statement and the audit log.")
    # Made with the form: sending it twice corrects once.
    token = forms.UUIDField(widget=forms.HiddenInput, initial=uuid.uuid4)

    def prepare(self) -> None:
        chosen: Any = self.fields["record"]
        chosen.queryset = UsageRecord.objects.filter(job_id=self.row.id, corrects=None).order_by("meter")
        chosen.label_from_instance = lambda record: (
            f"{record.get_meter_display()}: {quantity_of(record).normalize():f} now"
        )


def _make(
    tenant: Tenant,
    operator: Operator,
    *,
    discount: Decimal,
    minimum: Decimal,
    starts_at: datetime | None,
    ends_at: datetime | None,
    prices: Any,
) -> Done:
    book: PriceBook | None = None
    if prices:
        book = price_book_publish(currency=tenant.currency, tenant=tenant, rates=prices, now=operator.now)
        operator.record("price_book.publish", str(book), tenant=tenant, details=rates_details(prices))
    made = contract_make(
        tenant=tenant,
        discount=discount / 100,
        minimum_micros=minimum_of(minimum),
        price_book=book,
        starts_at=starts_at,
        ends_at=ends_at,
        now=operator.now,
    )
    operator.record("contract.make", tenant.slug, tenant=tenant, details=contract_details(made))
    return Done(f"{tenant.slug} has a contract from {cells.when(made.starts_at)}.")


def _end(tenant: Tenant, operator: Operator, *, ends_at: datetime | None) -> Done:
    ended = contract_end(tenant=tenant, ends_at=ends_at, now=operator.now)
    operator.record("contract.end", tenant.slug, tenant=tenant, details=contract_details(ended))
    return Done(f"The contract ends {cells.when(ended.ends_at)}.")


def _correct(
    job: Job, operator: Operator, *, record: UsageRecord, quantity: Decimal, reason: str, token: uuid.UUID
) -> Done:
    author = f"operator:{operator.name}"
    made, note = usage_correct(
        record=record, key=token, quantity=quantity, reason=reason, author=author, now=operator.now
    )
    charged = sum(charge.amount_micros for charge in made.charges.all())
    told = f" {title_of(note)} tells it, since the month's statement is final." if note else ""
    amount = format_micros(charged, job.tenant.currency)
    return Done(f"Corrected: {amount} was charged, or given back if below zero.{told}")


MAKE_CONTRACT = Act(
    name="contract",
    label="New contract",
    permission="billing.add_contract",
    perform=_make,
    form=ContractForm,
    explain="A discount, a month's minimum, prices of its own. Terms never change; what was accepted keeps its prices.",
)
END_CONTRACT = Act(
    name="end-contract",
    label="End contract",
    permission="billing.add_contract",
    perform=_end,
    form=EndForm,
    applies=lambda tenant: contract_at(tenant=tenant, now=datetime.now(UTC)) is not None,
    explain="Ends the contract, sooner than was agreed.",
    danger=True,
)
CORRECT_USAGE = Act(
    name="correct",
    label="Correct usage",
    permission="billing.add_usagerecord",
    perform=_correct,
    form=CorrectionForm,
    applies=lambda job: UsageRecord.objects.filter(job_id=job.id).exists(),
    explain="Adds a record with the difference, charged or given back by the terms of the first charge.",
)


def contracts_section(tenant: Tenant) -> Section:
    return Section(
        "Contracts",
        ("From", "Until", "Discount", "Minimum of a month", "Prices of its own"),
        [
            (
                cells.when(contract.starts_at),
                cells.when(contract.ends_at),
                f"{(contract.discount * 100).normalize():f} %",
                cells.money(contract.minimum_micros, tenant.currency),
                cells.link(contract.price_book),
            )
            for contract in tenant.contracts.select_related("price_book__tenant").order_by("-starts_at")
        ],
        "None: the list's prices.",
    )
