"""From quantities and prices to charges: pure functions, one rounding per charge.

`amount_micros = half-even(sum over bands of quantity * price * (1 - discount) * 10**6)`, each step but the last exact.
What a rate's bands are and where in the month a quantity lies is all that it takes, so that a charge can be rated again
from what it keeps: its record's quantity, its rate, `used_before` and `discount`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise, product
from uuid import UUID

from billing.money import EXACT, to_micros
from billing.pricing.models import Contract, Meter, PriceBook, Rate
from core.errors import DomainError
from core.revision import cached_by_revision
from tenants.models import Tenant

ZERO = Decimal(0)
# What a request is refused without a price for, so that nobody draws for nothing by mistake. What else nobody prices
# is recorded and not charged.
REQUIRED = frozenset({Meter.GPU_SECOND, Meter.IMAGE_UNIT, Meter.REQUEST})
# Meter, model, GPU class, tier; an empty one is any.
Key = tuple[str, str, str, str]


class PriceMissing(DomainError):
    """No price is set for this work: the platform's operator has to add a price book."""

    code, type, http_status, retryable = "price_missing", "server_error", 503, True


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """So much of a meter; GPU class, model and tier choose its rate."""

    meter: Meter
    amount: Decimal
    gpu_class: str = ""
    model: str = ""
    tier: str = ""


@dataclass(frozen=True, slots=True)
class Band:
    """What a unit costs above so many units of the month."""

    above: Decimal
    unit_price: Decimal


@dataclass(frozen=True, slots=True)
class Part:
    """So much of a quantity at one price."""

    amount: Decimal
    unit_price: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """A rate as rating needs it: its bands, from 0 up."""

    rate_id: int
    mode: Rate.Mode
    bands: tuple[Band, ...]
    book: str

    @classmethod
    def of(cls, rate: Rate) -> "Tariff":
        tiers = (Band(tier.above, tier.unit_price) for tier in rate.tiers.all())
        return cls(
            rate_id=rate.pk,
            mode=Rate.Mode(rate.mode),
            bands=(Band(ZERO, rate.unit_price), *sorted(tiers, key=lambda band: band.above)),
            book=str(rate.price_book),
        )

    @property
    def dearest(self) -> Decimal:
        """The most that a unit can cost, wherever in the month it is used."""
        return max(band.unit_price for band in self.bands)

    def price_at(self, total: Decimal) -> Decimal:
        """Of the tier that a month's sum reaches."""
        return next((band.unit_price for band in reversed(self.bands) if total > band.above), self.bands[0].unit_price)

    def parts(self, amount: Decimal, used_before: Decimal) -> list[Part]:
        """A quantity used after `used_before` units of the month, by price; one taken back has parts below zero."""
        if self.mode == Rate.Mode.FLAT:
            return [Part(amount, self.bands[0].unit_price)]
        if self.mode == Rate.Mode.VOLUME:
            return [Part(amount, self.price_at(EXACT.add(used_before, amount)))]
        low, high = sorted((used_before, EXACT.add(used_before, amount)))
        edges = [min(low, ZERO), *(band.above for band in self.bands[1:]), max(high, self.bands[-1].above)]
        parts = []
        for band, (begin, end) in zip(self.bands, pairwise(edges), strict=True):
            inside = EXACT.subtract(min(high, end), max(low, begin))
            if inside > 0:
                parts.append(Part(inside.copy_negate() if amount < 0 else inside, band.unit_price))
        return parts or [Part(amount, self.price_at(used_before))]

    def micros(self, amount: Decimal, *, used_before: Decimal = ZERO, discount: Decimal = ZERO) -> int:
        """What a quantity of usage costs: the formula of this module, with its one rounding."""
        return _rounded(self.parts(amount, used_before), discount)

    def correction_micros(self, amount: Decimal, *, used_before: Decimal = ZERO, discount: Decimal = ZERO) -> int:
        """What it makes to the month's cost that its sum is `used_before + amount` instead of `used_before`.

        By volume, where the tier that is reached prices all units, that is more or less than the price of `amount`.
        """
        if self.mode != Rate.Mode.VOLUME:
            return self.micros(amount, used_before=used_before, discount=discount)
        right = EXACT.add(used_before, amount)
        return _rounded(
            [Part(right, self.price_at(right)), Part(used_before.copy_negate(), self.price_at(used_before))],
            discount,
        )


def _rounded(parts: Iterable[Part], discount: Decimal) -> int:
    exact = ZERO
    for part in parts:
        exact = EXACT.fma(part.amount, part.unit_price, exact)
    return to_micros(EXACT.multiply(exact, 1 - discount) if discount else exact)


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedLine:
    """A quantity with its price, where in the month it was used, and what came of it."""

    quantity: Quantity
    tariff: Tariff
    contract_id: UUID | None
    used_before: Decimal
    discount: Decimal
    amount_micros: int
    list_micros: int

    @property
    def parts(self) -> list[Part]:
        return self.tariff.parts(self.quantity.amount, self.used_before)


@dataclass(frozen=True, slots=True)
class Prices:
    """What a tenant pays at an instant: the list, and what its contract says."""

    currency: str
    listed: Mapping[Key, Tariff]
    own: Mapping[Key, Tariff] = field(default_factory=dict)
    contract_id: UUID | None = None
    discount: Decimal = ZERO
    bills_stopped_work: bool = False

    @classmethod
    def at(cls, *, tenant: Tenant, now: datetime) -> "Prices":
        """The list in force, and the tenant's contract if one is."""
        return cls.among(lists(tenant.currency), contracts(tenant.pk), currency=tenant.currency, now=now)

    @classmethod
    def among(
        cls, books: Iterable[PriceBook], contracts: Iterable[Contract], *, currency: str, now: datetime
    ) -> "Prices":
        """Of these lists, the newest first, and of a tenant's contracts what is in force."""
        book = next((book for book in books if book.effective_at <= now), None)
        contract = next((one for one in contracts if _runs(one, now)), None)
        return cls(
            currency,
            listed=_tariffs(book.pk) if book else {},
            own=_tariffs(contract.price_book_id) if contract and contract.price_book_id else {},
            contract_id=contract.pk if contract else None,
            discount=contract.discount if contract else ZERO,
            bills_stopped_work=book.bills_stopped_work if book else False,
        )

    def tariff(self, quantity: Quantity) -> Tariff | None:
        """The rate that fits best: the contract's before the list's, then by model, GPU class and tier."""
        return _best(self.own, quantity) or _best(self.listed, quantity)

    def line(self, quantity: Quantity, *, used_before: Decimal = ZERO) -> RatedLine | None:
        """What a quantity costs, used after `used_before` units of its rate's month; None if nobody prices it."""
        tariff = self.tariff(quantity)
        if tariff is None:
            return None
        listed = _best(self.listed, quantity) or tariff
        return RatedLine(
            quantity=quantity,
            tariff=tariff,
            contract_id=self.contract_id,
            used_before=used_before,
            discount=self.discount,
            amount_micros=tariff.micros(quantity.amount, used_before=used_before, discount=self.discount),
            list_micros=listed.micros(quantity.amount, used_before=used_before),
        )

    def max_micros(self, quantities: Iterable[Quantity]) -> int:
        """What quantities that are at most these can cost, wherever in the month they end. Raises `PriceMissing`.

        Rounding doesn't break the order of amounts, and no band is dearer than the dearest: no sum of `line`s is more.
        """
        most = 0
        for quantity in quantities:
            tariff = self.tariff(quantity)
            if tariff is not None:
                most += _rounded([Part(quantity.amount, tariff.dearest)], self.discount)
            elif quantity.meter in REQUIRED:
                raise PriceMissing(
                    f"no price of {quantity.meter} {quantity.gpu_class}".rstrip() + f" in {self.currency}"
                )
        return most


def _best(rates: Mapping[Key, Tariff], quantity: Quantity) -> Tariff | None:
    if not rates:
        return None
    for model, gpu_class, tier in product(_or_any(quantity.model), _or_any(quantity.gpu_class), _or_any(quantity.tier)):
        if found := rates.get((quantity.meter, model, gpu_class, tier)):
            return found
    return None


def _or_any(value: str) -> tuple[str, ...]:
    return (value, "") if value else ("",)


def _runs(contract: Contract, now: datetime) -> bool:
    return contract.starts_at <= now and (contract.ends_at is None or now < contract.ends_at)


@cached_by_revision
def lists(currency: str) -> list[PriceBook]:
    """Newest first."""
    return list(PriceBook.objects.filter(currency=currency, tenant=None).order_by("-effective_at"))


@cached_by_revision
def contracts(tenant_id: UUID) -> list[Contract]:
    return list(Contract.objects.filter(tenant=tenant_id).order_by("-starts_at"))


@lru_cache(maxsize=1024)
def _tariffs(price_book_id: int) -> dict[Key, Tariff]:
    """Kept for as long as the process lives, since a book never changes."""
    rates = Rate.objects.filter(price_book=price_book_id).select_related("price_book__tenant").prefetch_related("tiers")
    return {(rate.meter, rate.model, rate.gpu_class, rate.tier): Tariff.of(rate) for rate in rates}
