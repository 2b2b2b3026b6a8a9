"""Price books. They are append-only: prices change by a new book."""

from collections.abc import Iterable

from django.contrib import admin

from billing.models import PriceBook
from billing.pricing.price_books import RateTerms, rates_of
from easel.actions import prices
from easel.portal import cells
from easel.portal.filters import TenantFilter
from easel.portal.pages import Page, Section
from easel.portal.site import portal


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


@admin.register(PriceBook, site=portal)
class PriceBookPage(Page):
    list_display = ("shown_name", "tenant", "currency", "version", "effective_at", "created_at")
    list_filter = (TenantFilter, "currency")
    list_select_related = ("tenant",)
    ordering = ("-effective_at", "-id")
    fields = ("tenant", "currency", "version", "effective_at", "bills_stopped_work", "created_at")
    row_actions = (prices.PUBLISH,)

    @admin.display(description="price book")
    def shown_name(self, book: PriceBook) -> str:
        return str(book)

    def sections(self, row: PriceBook) -> Iterable[Section]:
        yield rates_section(row)
