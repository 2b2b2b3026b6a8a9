"""Price books. They are append-only: prices change by a new book."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from django import forms
from django.contrib import admin

from billing.models import PriceBook
from billing.pricing.price_books import (
    PRICE_MAX,
    RateTerms,
    price_book_publish,
    rates_details,
    rates_of,
)
from billing.pricing.price_files import rates_read
from core.errors import DomainError
from easel.portal import cells
from easel.portal.filters import TenantFilter
from easel.portal.pages import Act, ActForm, Done, Operator, Page, Section
from easel.portal.site import portal


def price_field(*, label: str, help_text: str, initial: Any) -> forms.DecimalField:
    field = forms.DecimalField(
        label=label,
        help_text=help_text,
        max_digits=30,
        decimal_places=15,
        min_value=0,
        max_value=PRICE_MAX - 1,
        widget=forms.TextInput,
    )
    field.initial = f"{initial.normalize():f}"
    return field


class PricesForm(ActForm):
    """The rates of the newest book, to be changed, and room for more of them."""

    effective_at = forms.DateTimeField(
        label="In force from (UTC)",
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        input_formats=["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"],
        help_text="Later than the newest book's. What was accepted before keeps its prices.",
    )
    bills_stopped_work = forms.BooleanField(
        required=False,
        label="Charge stopped work",
        help_text="A job that is canceled or expires while it runs pays for the steps that it took.",
    )
    version = forms.IntegerField(widget=forms.HiddenInput)

    def prepare(self) -> None:
        self.fields["version"].initial = self.row.version + 1
        self.fields["bills_stopped_work"].initial = self.row.bills_stopped_work
        for rate in rates_of(self.row):
            name = ", ".join(
                [rate.get_meter_display(), *(part for part in (rate.model, rate.gpu_class, rate.tier) if part)]
            )
            each = f"{self.row.currency} for one"
            self.fields[f"rate_{rate.pk}"] = price_field(label=name, help_text=each, initial=rate.unit_price)
            for tier in rate.tiers.all():
                self.fields[f"tier_{tier.pk}"] = price_field(
                    label=f"{name}, above {tier.above.normalize():f} a month",
                    help_text=f"{each}, {rate.get_mode_display()}",
                    initial=tier.unit_price,
                )
        self.fields["more"] = forms.CharField(
            required=False,
            label="More prices",
            widget=forms.Textarea,
            help_text="As `easel price publish` has them: - {meter: image_unit, model: z-image, price: 0.003}",
        )

    def clean_effective_at(self) -> datetime:
        given: datetime = self.cleaned_data["effective_at"]
        now = datetime.now(UTC)
        if given <= self.row.effective_at:
            raise forms.ValidationError(f"Later than {cells.when(self.row.effective_at)}, when the newest book began.")
        if given < now.replace(second=0, microsecond=0):
            raise forms.ValidationError("Not in the past: what was accepted since then has its prices already.")
        return given

    def clean_more(self) -> tuple[RateTerms, ...]:
        text = self.cleaned_data["more"].strip()
        try:
            return rates_read(text) if text else ()
        except DomainError as error:
            raise forms.ValidationError(str(error)) from error

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        rates = [
            replace(
                RateTerms.of(rate),
                unit_price=given[f"rate_{rate.pk}"],
                tiers=tuple((tier.above, given[f"tier_{tier.pk}"]) for tier in rate.tiers.all()),
            )
            for rate in rates_of(self.row)
            if not self.errors
        ]
        kept = {name: given.get(name) for name in ("effective_at", "version", "bills_stopped_work")}
        return {**kept, "rates": [*rates, *given.get("more", ())]}


def _publish(
    book: PriceBook,
    operator: Operator,
    *,
    effective_at: datetime,
    version: int,
    bills_stopped_work: bool,
    rates: Sequence[RateTerms],
) -> Done:
    made = price_book_publish(
        currency=book.currency,
        tenant=book.tenant,
        version=version,
        rates=rates,
        effective_at=max(effective_at, operator.now),  # the form knows minutes
        bills_stopped_work=bills_stopped_work,
        now=operator.now,
    )
    details = {"effective_at": made.effective_at.isoformat(), "bills_stopped_work": bills_stopped_work}
    operator.record("price_book.publish", str(made), tenant=book.tenant, details={**details, **rates_details(rates)})
    return Done(f"{made} is published, in force from {cells.when(made.effective_at)}.", show=made)


def rates_section(book: PriceBook) -> Section:
    return Section(
        "Rates",
        ("Meter", "Model", "GPU class", "Tier", "Price of one"),
        [
            (
                rate.get_meter_display(),
                rate.model or cells.NOTHING,
                rate.gpu_class or cells.NOTHING,
                rate.tier or cells.NOTHING,
                cells.number(f"{RateTerms.of(rate).price_text} {book.currency}"),
            )
            for rate in rates_of(book)
        ],
        "No rates.",
    )


def _is_newest(book: PriceBook) -> bool:
    later = PriceBook.objects.filter(tenant=book.tenant, currency=book.currency, version__gt=book.version)
    return not later.exists()


@admin.register(PriceBook, site=portal)
class PriceBookPage(Page):
    list_display = ("shown_name", "tenant", "currency", "version", "effective_at", "created_at")
    list_filter = (TenantFilter, "currency")
    list_select_related = ("tenant",)
    ordering = ("-effective_at", "-id")
    fields = ("tenant", "currency", "version", "effective_at", "bills_stopped_work", "created_at")
    acts = (
        Act(
            name="publish",
            label="Publish new prices",
            permission="billing.add_pricebook",
            perform=_publish,
            form=PricesForm,
            applies=lambda book: book.tenant_id is None and _is_newest(book),
            explain="A new book with these prices, changed as you like. A published book never changes.",
        ),
    )

    @admin.display(description="price book")
    def shown_name(self, book: PriceBook) -> str:
        return str(book)

    def sections(self, row: PriceBook) -> Iterable[Section]:
        yield rates_section(row)
