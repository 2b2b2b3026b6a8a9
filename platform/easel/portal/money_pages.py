"""Prices and the ledger. Both are append-only: prices change by a new book, balances by transactions."""

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import BigIntegerField, OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from unfold.contrib.filters.admin import RangeDateFilter

from billing.models import Account, Entry, Meter, PriceBook, Transaction
from billing.price_books import price_book_publish
from easel.portal import cells
from easel.portal.filters import TenantFilter
from easel.portal.pages import Act, ActForm, Done, Operator, Page, Section
from easel.portal.site import portal
from tenants.errors import DomainError

MOVEMENTS = 50


class PriceBookOutdated(DomainError):
    """Another version was published meanwhile: open the form again, which then begins with its prices."""

    code, http_status = "price_book_outdated", 409


class PricesForm(ActForm):
    """The rates of the newest book of a currency, to be changed."""

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
        for rate in self.row.rates.order_by("meter", "gpu_class"):
            gpu_class = f", {rate.gpu_class}" if rate.gpu_class else ""
            self.fields[f"rate_{rate.pk}"] = forms.DecimalField(
                label=f"{rate.get_meter_display()}{gpu_class}",
                help_text=f"{self.row.currency} for one",
                max_digits=30,
                decimal_places=15,
                min_value=0,
                initial=rate.unit_price.normalize(),
                widget=forms.TextInput,
            )
            self.fields[f"rate_{rate.pk}"].initial = f"{rate.unit_price.normalize():f}"

    def clean_effective_at(self) -> datetime:
        given: datetime = self.cleaned_data["effective_at"]
        if given <= self.row.effective_at:
            raise forms.ValidationError(f"Later than {cells.when(self.row.effective_at)}, when the newest book began.")
        if given < datetime.now(UTC).replace(second=0, microsecond=0):
            raise forms.ValidationError("Not in the past: what was accepted since then has its prices already.")
        return given

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        rates: dict[tuple[Meter, str], Decimal] = {
            (Meter(rate.meter), rate.gpu_class): given[f"rate_{rate.pk}"]
            for rate in self.row.rates.all()
            if f"rate_{rate.pk}" in given
        }
        kept = {name: given.get(name) for name in ("effective_at", "version", "bills_stopped_work")}
        return {**kept, "rates": rates}


def _publish(
    book: PriceBook,
    operator: Operator,
    *,
    effective_at: datetime,
    version: int,
    bills_stopped_work: bool,
    rates: Any,
) -> Done:
    # Of operators who change the same prices at once, the second begins anew from what the first has published.
    PriceBook.objects.select_for_update().get(pk=book.pk)
    if version != book.version + 1 or not _is_newest(book):
        raise PriceBookOutdated
    made = price_book_publish(
        currency=book.currency,
        version=version,
        rates=rates,
        effective_at=effective_at,
        bills_stopped_work=bills_stopped_work,
        now=operator.now,
    )
    shown = {f"{meter} {gpu_class}".strip(): f"{price.normalize():f}" for (meter, gpu_class), price in rates.items()}
    details = {"effective_at": effective_at.isoformat(), "bills_stopped_work": bills_stopped_work, **shown}
    operator.record("price_book.publish", str(made), details=details)
    return Done(f"{made} is published, in force from {cells.when(effective_at)}.", show=made)


def _is_newest(book: PriceBook) -> bool:
    return not PriceBook.objects.filter(currency=book.currency, version__gt=book.version).exists()


@admin.register(PriceBook, site=portal)
class PriceBookPage(Page):
    list_display = ("shown_name", "currency", "version", "effective_at", "created_at")
    list_filter = ("currency",)
    ordering = ("-effective_at", "-id")
    fields = ("currency", "version", "effective_at", "bills_stopped_work", "created_at")
    acts = (
        Act(
            name="publish",
            label="Publish new prices",
            permission="billing.add_pricebook",
            perform=_publish,
            form=PricesForm,
            applies=_is_newest,
            explain="A new book with these prices, changed as you like. A published book never changes.",
        ),
    )

    @admin.display(description="price book")
    def shown_name(self, book: PriceBook) -> str:
        return str(book)

    def sections(self, row: PriceBook) -> Iterable[Section]:
        yield Section(
            "Rates",
            ("Meter", "GPU class", "Price of one"),
            [
                (
                    rate.get_meter_display(),
                    rate.gpu_class or "any without its own",
                    cells.number(f"{rate.unit_price.normalize():f} {row.currency}"),
                )
                for rate in row.rates.order_by("meter", "gpu_class")
            ],
            "No rates.",
        )


@admin.register(Account, site=portal)
class AccountPage(Page):
    list_display = ("shown_name", "tenant", "kind", "balance")
    list_filter = (TenantFilter, "kind", "currency")
    search_fields = ("tenant__slug",)
    list_select_related = ("tenant",)
    ordering = ("tenant__slug", "kind", "currency")
    fields = ("tenant", "kind", "currency", "balance")
    readonly_fields = ("balance",)

    @admin.display(description="account")
    def shown_name(self, account: Account) -> str:
        return str(account)

    @admin.display(ordering="balance_micros")
    def balance(self, account: Account) -> str:
        return cells.money(account.balance_micros, account.currency)

    def sections(self, row: Account) -> Iterable[Section]:
        entries = row.entries.select_related("transaction").order_by("-transaction__created_at", "-id")
        yield Section(
            f"Latest entries (up to {MOVEMENTS})",
            ("At", "Transaction", "Kind", "Description", "Amount"),
            [
                (
                    cells.when(entry.transaction.created_at),
                    cells.link(entry.transaction),
                    entry.transaction.kind,
                    entry.transaction.description or cells.NOTHING,
                    cells.money(entry.amount_micros, row.currency),
                )
                for entry in entries[:MOVEMENTS]
            ],
            "Nothing moved on this account.",
        )


@admin.register(Transaction, site=portal)
class TransactionPage(Page):
    list_display = ("created_at", "tenant", "kind", "moved", "shown_reference", "description")
    list_filter = (TenantFilter, "kind", ("created_at", RangeDateFilter))
    list_select_related = ("tenant",)
    ordering = ("-created_at", "-id")
    fields = ("created_at", "tenant", "kind", "moved", "shown_reference", "description")
    readonly_fields = ("moved", "shown_reference")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Transaction]:
        into = Entry.objects.filter(transaction=OuterRef("pk"), amount_micros__gt=0).order_by().values("transaction")
        transactions: QuerySet[Transaction] = super().get_queryset(request)
        return transactions.annotate(
            moved_micros=Coalesce(
                Subquery(into.annotate(sum=Sum("amount_micros")).values("sum")), 0, output_field=BigIntegerField()
            )
        )

    @admin.display(description="moved")
    def moved(self, transaction: Any) -> str:
        return cells.money(transaction.moved_micros, transaction.currency)

    @admin.display(description="reference")
    def shown_reference(self, transaction: Transaction) -> str:
        return cells.code(transaction.reference)

    def sections(self, row: Transaction) -> Iterable[Section]:
        yield Section(
            "Entries, which sum to zero",
            ("Account", "Amount"),
            [
                (cells.link(entry.account, entry.account.kind), cells.money(entry.amount_micros, row.currency))
                for entry in row.entries.select_related("account").order_by("id")
            ],
            "It moved nothing: a free request.",
        )
        yield Section(
            "Charges",
            ("Meter", "Job", "Amount"),
            [
                (
                    charge.usage_record.get_meter_display(),
                    cells.code(charge.usage_record.job_id or "storage"),
                    cells.money(charge.amount_micros, charge.currency),
                )
                for charge in row.charges.select_related("usage_record").order_by("usage_record__meter")[:MOVEMENTS]
            ],
            "None: only what was used is charged.",
        )
