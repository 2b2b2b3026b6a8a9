"""Rates quantities: pure functions from quantities and prices to charges, with one rounding per charge.

`amount_micros = half-even(sum over tiers of quantity * price * (1 - discount) * 10**6)`, all exact but the last step.
An amount depends only on the quantity, the rate, the month's earlier usage (`used_before`) and the discount. A charge
stores them, so that it can be rated again.

The work of batches has the list's batch discount in addition to a contract's: after 10 % and 50 %, 45 % of the price
are left. A charge stores this one discount, so a batch's charge is rated, shown and corrected like any other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
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
# The places of a charge's discount. Batch discounts are whole percents, so the discount of a batch is exact for every
# contract in hundredths of a percent; of a finer one it is rounded here, once, before it is shown or stored.
_DISCOUNT_PLACES = Decimal("0.000001")
# A request is refused while one of these has no price, so that nobody generates for free by mistake. Usage of other
# meters without a price is recorded and not charged.
REQUIRED = frozenset({Meter.GPU_SECOND, Meter.IMAGE_UNIT, Meter.REQUEST})
# Meter, model, GPU class, tier; an empty value stands for any.
Key = tuple[str, str, str, str]


class PriceMissing(DomainError, code="price_missing", type="server_error", http_status=503, retryable=True):
    """No price is set for this work: the platform's operator has to add a price book.

    Tell the platform's operator, who has to publish a price for this work (`easel price publish`).
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """An amount of a meter; GPU class, model and tier choose its rate."""

    meter: Meter
    amount: Decimal
    gpu_class: str = ""
    model: str = ""
    tier: str = ""


@dataclass(frozen=True, slots=True)
class TierPrice:
    """The price of a unit above so many units of the month."""

    above: Decimal
    unit_price: Decimal


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a quantity that has one price."""

    amount: Decimal
    unit_price: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """A rate as rating needs it: the prices of its tiers, the first from 0 on."""

    rate_id: int
    mode: Rate.Mode
    tiers: tuple[TierPrice, ...]
    book: str

    @classmethod
    def of(cls, rate: Rate) -> "Tariff":
        tiers = (TierPrice(tier.above, tier.unit_price) for tier in rate.tiers.all())
        return cls(
            rate_id=rate.pk,
            mode=Rate.Mode(rate.mode),
            tiers=(TierPrice(ZERO, rate.unit_price), *sorted(tiers, key=lambda tier: tier.above)),
            book=str(rate.price_book),
        )

    def price_at(self, total: Decimal) -> Decimal:
        """Return the price of the tier that a month's sum reaches."""
        return next((tier.unit_price for tier in reversed(self.tiers) if total > tier.above), self.tiers[0].unit_price)

    def parts(self, amount: Decimal, used_before: Decimal) -> list[Part]:
        """Split a quantity after `used_before` units of the month by price; a negative one has negative parts."""
        if self.mode == Rate.Mode.FLAT:
            return [Part(amount, self.tiers[0].unit_price)]
        if self.mode == Rate.Mode.VOLUME:
            return [Part(amount, self.price_at(EXACT.add(used_before, amount)))]
        low, high = sorted((used_before, EXACT.add(used_before, amount)))
        edges = [min(low, ZERO), *(tier.above for tier in self.tiers[1:]), max(high, self.tiers[-1].above)]
        parts = []
        for tier, (begin, end) in zip(self.tiers, pairwise(edges), strict=True):
            inside = EXACT.subtract(min(high, end), max(low, begin))
            if inside > 0:
                parts.append(Part(inside.copy_negate() if amount < 0 else inside, tier.unit_price))
        return parts or [Part(amount, self.price_at(used_before))]

    def micros(self, amount: Decimal, *, used_before: Decimal = ZERO, discount: Decimal = ZERO) -> int:
        """Return the cost of a quantity by the formula of this module, with its one rounding."""
        return _rounded(self.parts(amount, used_before), discount)

    def correction_micros(self, amount: Decimal, *, used_before: Decimal = ZERO, discount: Decimal = ZERO) -> int:
        """Return the change of the month's cost when its sum changes from `used_before` to `used_before + amount`.

        With a volume price this differs from the cost of `amount`: the tier that the sum reaches prices all units.
        """
        if self.mode != Rate.Mode.VOLUME:
            return self.micros(amount, used_before=used_before, discount=discount)
        total = EXACT.add(used_before, amount)
        return _rounded(
            [Part(total, self.price_at(total)), Part(used_before.copy_negate(), self.price_at(used_before))],
            discount,
        )


def _rounded(parts: Iterable[Part], discount: Decimal) -> int:
    exact = ZERO
    for part in parts:
        exact = EXACT.fma(part.amount, part.unit_price, exact)
    return to_micros(EXACT.multiply(exact, 1 - discount) if discount else exact)


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedLine:
    """A rated quantity: its price, the month's earlier usage, and the amounts."""

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
    """A tenant's prices at an instant: the list's, and those of its contract."""

    currency: str
    listed: Mapping[Key, Tariff]
    own: Mapping[Key, Tariff] = field(default_factory=dict)
    contract_id: UUID | None = None
    discount: Decimal = ZERO
    bills_stopped_work: bool = False

    @classmethod
    def in_force(cls, *, tenant: Tenant, now: datetime, in_batch: bool = False) -> "Prices":
        """Return the prices in force: the list's, and those of the tenant's contract if it has one.

        `in_batch` asks for those of a batch's work.
        """
        books, agreed = lists(tenant.currency), contracts(tenant.pk)
        return cls.among(books, agreed, currency=tenant.currency, now=now, in_batch=in_batch)

    @classmethod
    def among(
        cls,
        books: Iterable[PriceBook],
        contracts: Iterable[Contract],
        *,
        currency: str,
        now: datetime,
        in_batch: bool = False,
    ) -> "Prices":
        """Return the prices in force among these lists, the newest first, and contracts of the tenant."""
        book = next((book for book in books if book.effective_at <= now), None)
        contract = next((one for one in contracts if _runs(one, now)), None)
        discount = contract.discount if contract else ZERO
        if in_batch and book and book.batch_discount:
            left = EXACT.multiply(1 - discount, 1 - book.batch_discount)
            discount = (1 - left).quantize(_DISCOUNT_PLACES)
        return cls(
            currency,
            listed=_tariffs(book.pk) if book else {},
            own=_tariffs(contract.price_book_id) if contract and contract.price_book_id else {},
            contract_id=contract.pk if contract else None,
            discount=discount,
            bills_stopped_work=book.bills_stopped_work if book else False,
        )

    def tariff(self, quantity: Quantity) -> Tariff | None:
        """Return the best fitting rate: the contract's before the list's, then by model, GPU class and tier."""
        names = (quantity.model, quantity.gpu_class, quantity.tier)
        for rates in filter(None, (self.own, self.listed)):
            # Each name before the empty one, which stands for any.
            for model, gpu_class, tier in product(*((name, "") if name else ("",) for name in names)):
                if found := rates.get((quantity.meter, model, gpu_class, tier)):
                    return found
        return None

    def line(self, quantity: Quantity, *, used_before: Decimal = ZERO) -> RatedLine | None:
        """Rate a quantity that is used after `used_before` units of the month; None if it has no price."""
        tariff = self.tariff(quantity)
        if tariff is None:
            return None
        listed = replace(self, own={}).tariff(quantity) or tariff
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
        """Return an upper bound of the cost of quantities up to these, wherever in the month. Raises `PriceMissing`.

        Every unit is rated at the price of the dearest tier. Rounding preserves the order of amounts, so that no sum of
        `line`s is more.
        """
        max_micros = 0
        for quantity in quantities:
            tariff = self.tariff(quantity)
            if tariff is not None:
                unit_price_max = max(tier.unit_price for tier in tariff.tiers)
                max_micros += _rounded([Part(quantity.amount, unit_price_max)], self.discount)
            elif quantity.meter in REQUIRED:
                raise PriceMissing(
                    f"no price of {quantity.meter} {quantity.gpu_class}".rstrip() + f" in {self.currency}"
                )
        return max_micros


def _runs(contract: Contract, now: datetime) -> bool:
    return contract.starts_at <= now and (contract.ends_at is None or now < contract.ends_at)


@cached_by_revision
def lists(currency: str) -> list[PriceBook]:
    """Return a currency's lists, the newest first."""
    return list(PriceBook.objects.filter(currency=currency, tenant=None).order_by("-effective_at"))


@cached_by_revision
def contracts(tenant_id: UUID) -> list[Contract]:
    """Return a tenant's contracts, the newest first."""
    return list(Contract.objects.filter(tenant=tenant_id).order_by("-starts_at"))


@lru_cache(maxsize=1024)
def _tariffs(price_book_id: int) -> dict[Key, Tariff]:
    """Return a book's tariffs, cached for as long as the process lives, since a book never changes."""
    rates = Rate.objects.filter(price_book=price_book_id).select_related("price_book__tenant").prefetch_related("tiers")
    return {(rate.meter, rate.model, rate.gpu_class, rate.tier): Tariff.of(rate) for rate in rates}
