"""Price books. They are append-only: prices change by a new book."""

from collections.abc import Iterable

from billing.models import PriceBook
from billing.pricing.price_books import RateTerms, rates_of
from easel.actions import prices
from easel.portal import cells
from easel.portal.pages import Page, Section, TenantFilter, column, register


@register(PriceBook)
class PriceBookPage(Page):
    empty = "Price books appear here. Publish the first by easel price publish."
    list_display = ("shown_name", "tenant", "currency", "version", "effective_at", "created_at")
    list_filter = (TenantFilter, "currency")
    list_select_related = ("tenant",)
    ordering = ("-effective_at", "-id")
    fields = ("tenant", "currency", "version", "effective_at", "bills_stopped_work", "batch_discount", "created_at")
    row_actions = (prices.publish,)

    shown_name = column("price book", lambda book: str(book))

    def sections(self, row: PriceBook) -> Iterable[Section]:
        yield Section.of(
            "Rates",
            rates_of(row),
            {
                "Meter": lambda rate: rate.get_meter_display(),
                "Model": lambda rate: rate.model or cells.NOTHING,
                "GPU class": lambda rate: rate.gpu_class or cells.NOTHING,
                "Tier": lambda rate: rate.tier or cells.NOTHING,
                "Price of one": lambda rate: cells.number(f"{RateTerms.of(rate).price_text} {row.currency}"),
            },
            "No rates.",
        )
