"""From quantities and prices to charges: pure functions, one rounding per charge."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from billing.models import Meter, PriceBook, Rate
from billing.money import EXACT, to_micros
from tenants.configuration import kept
from tenants.errors import DomainError


class PriceMissing(DomainError):
    """No price is set for this work: the platform's operator has to add a price book."""

    code, type, http_status, retryable = "price_missing", "server_error", 503, True


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """So much of a meter; `gpu_class` chooses the rate of GPU seconds."""

    meter: Meter
    amount: Decimal
    gpu_class: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedLine:
    """A quantity with its price: `amount_micros = round_half_even(quantity * unit_price * 10**6)`."""

    quantity: Quantity
    rate_id: int
    unit_price: Decimal
    amount_micros: int


@dataclass(frozen=True, slots=True)
class Prices:
    """The rates of one price book, by meter and GPU class."""

    currency: str
    rates: Mapping[tuple[str, str], tuple[int, Decimal]]
    bills_stopped_work: bool = False

    @classmethod
    def at(cls, *, currency: str, at: datetime) -> "Prices":
        """The book in force at an instant. Raises `PriceMissing`."""
        book = next((book for book in _books(currency) if book.effective_at <= at), None)
        if book is None:
            raise PriceMissing(f"no price book in {currency} is in force")
        return cls(currency, _rates(book.pk), book.bills_stopped_work)

    def rate(self, quantities: Iterable[Quantity]) -> list[RatedLine]:
        """What each quantity costs. Raises `PriceMissing` for a meter without a rate."""
        return [self._line(quantity) for quantity in quantities]

    def _line(self, quantity: Quantity) -> RatedLine:
        found = self.rates.get((quantity.meter, quantity.gpu_class)) or self.rates.get((quantity.meter, ""))
        if found is None:
            raise PriceMissing(f"no rate for {quantity.meter} {quantity.gpu_class}".rstrip())
        rate_id, unit_price = found
        return RatedLine(
            quantity=quantity,
            rate_id=rate_id,
            unit_price=unit_price,
            amount_micros=to_micros(EXACT.multiply(quantity.amount, unit_price)),
        )


@kept
def _books(currency: str) -> list[PriceBook]:
    """Newest first."""
    return list(PriceBook.objects.filter(currency=currency, tenant=None).order_by("-effective_at"))


@kept
def _rates(price_book_id: int) -> dict[tuple[str, str], tuple[int, Decimal]]:
    rates = Rate.objects.filter(price_book=price_book_id)
    return {(rate.meter, rate.gpu_class): (rate.pk, rate.unit_price) for rate in rates}


def total_micros(lines: Iterable[RatedLine]) -> int:
    return sum(line.amount_micros for line in lines)
