"""Publishes price books. A book never changes: a change of price is the next book, and earlier charges keep theirs."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from billing.money import plain
from billing.pricing.models import Meter, PriceBook, PriceTier, Rate
from billing.pricing.rating import REQUIRED
from core.errors import DomainError
from core.text import is_line
from tenants.models import Tenant

PLACES = 15
PRICE_MAX = Decimal(10) ** 9  # keeps any request's cost far below what an account can hold
ABOVE_MAX = Decimal(10) ** 23
_GPU_METERS = (Meter.GPU_SECOND, Meter.POOL_SECOND)
_RATE_FIELDS = ("meter", "gpu_class", "model", "tier", "mode", "unit_price")
_METERS_WITHOUT_JOB = (Meter.POOL_SECOND, Meter.STORAGE_GB_SECOND)


class PricesInvalid(DomainError, code="prices_invalid"):
    """A price is invalid.

    Correct the price that the message names.
    """


class PriceBookBackdated(DomainError, code="price_book_backdated", http_status=409):
    """Prices must begin after the newest ones and not in the past: usage since then is already priced.

    Let the new prices begin later than the newest ones, and not in the past.
    """


class PriceBookOutdated(DomainError, code="price_book_outdated", http_status=409):
    """Another version was published meanwhile: start again from its prices.

    Read the newest prices, change them, and publish the result.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class RateTerms:
    """A rate to publish: the price of one unit of a meter, in units of the currency.

    `tiers` are (units of the month, price above them), of a graduated or volume price. An empty dimension is any.
    """

    meter: Meter
    unit_price: Decimal
    gpu_class: str = ""
    model: str = ""
    tier: str = ""
    mode: Rate.Mode = Rate.Mode.FLAT
    tiers: tuple[tuple[Decimal, Decimal], ...] = ()

    @classmethod
    def of(cls, rate: Rate) -> "RateTerms":
        """Return the terms with which a rate was published."""
        terms = {name: getattr(rate, name) for name in _RATE_FIELDS}
        terms |= {"meter": Meter(rate.meter), "mode": Rate.Mode(rate.mode)}
        return cls(**terms, tiers=tuple((tier.above, tier.unit_price) for tier in rate.tiers.all()))

    @property
    def name(self) -> str:
        return " ".join(part for part in (self.meter, self.model, self.gpu_class, self.tier) if part)

    @property
    def price_text(self) -> str:
        """`0.002`, `0.002, above 1000: 0.0015 (graduated)`."""
        prices = [plain(self.unit_price), *(f"above {plain(above)}: {plain(price)}" for above, price in self.tiers)]
        return ", ".join(prices) + ("" if self.mode == Rate.Mode.FLAT else f" ({self.mode})")


@transaction.atomic
def price_book_publish(
    *,
    currency: str,
    rates: Sequence[RateTerms],
    effective_at: datetime | None = None,
    version: int | None = None,
    bills_stopped_work: bool = False,
    batch_discount: Decimal = Decimal(0),
    tenant: Tenant | None = None,
    now: datetime,
) -> PriceBook:
    """Add the next price book of a currency, in force from `effective_at` (default: now) until a later book's.

    A tenant's book is in force only by its contract. `version` is the version that the caller expects this book to get.
    Raises `PricesInvalid`, `PriceBookBackdated`, and `PriceBookOutdated` if it gets another.
    """
    effective_at = now if effective_at is None else effective_at
    rates_check(rates)
    discount_check(batch_discount)
    if tenant is None:
        _check_no_gap(rates)
    newest = PriceBook.objects.filter(tenant=tenant, currency=currency).order_by("-version").first()
    following = newest.version + 1 if newest else 1
    if version not in (None, following):
        raise PriceBookOutdated
    if effective_at < now:
        raise PriceBookBackdated(
            f"{effective_at.isoformat()} is past: usage since then is already priced", param="effective_at"
        )
    latest = PriceBook.objects.filter(tenant=tenant, currency=currency).order_by("-effective_at").first()
    if latest is not None and effective_at <= latest.effective_at:
        raise PriceBookBackdated(
            f"{latest} begins {latest.effective_at.isoformat()}: the next book must begin later", param="effective_at"
        )
    try:
        with transaction.atomic():
            book = PriceBook.objects.create(
                tenant=tenant,
                currency=currency,
                version=following,
                effective_at=effective_at,
                bills_stopped_work=bills_stopped_work,
                batch_discount=batch_discount,
                created_at=now,
            )
    except IntegrityError as error:  # two books were published at once
        raise PriceBookOutdated from error
    _add(book, rates)
    return book


@transaction.atomic
def price_book_seed(
    *,
    currency: str,
    version: int,
    rates: Sequence[RateTerms],
    effective_at: datetime,
    bills_stopped_work: bool = False,
    batch_discount: Decimal = Decimal(0),
    now: datetime,
) -> PriceBook:
    """Add an installation's first list, which may begin in the past; do nothing if the currency has this version."""
    rates_check(rates)
    discount_check(batch_discount)
    book, created = PriceBook.objects.get_or_create(
        tenant=None,
        currency=currency,
        version=version,
        defaults={
            "effective_at": effective_at,
            "bills_stopped_work": bills_stopped_work,
            "batch_discount": batch_discount,
            "created_at": now,
        },
    )
    if created:
        _add(book, rates)
    return book


def rates_check(rates: Iterable[RateTerms]) -> None:
    """Raise `PricesInvalid` for the first rate that can't be published."""
    seen: set[tuple[str, str, str, str]] = set()
    for terms in rates:
        key = (terms.meter, terms.model, terms.gpu_class, terms.tier)
        if key in seen:
            raise PricesInvalid(f"{terms.name} is priced twice")
        seen.add(key)
        if fault := next(_faults(terms), None):
            raise PricesInvalid(f"{terms.name[:100]!r}: {fault}")
    if not seen:
        raise PricesInvalid("there is no price")


def discount_check(discount: Decimal) -> None:
    """Raise `PricesInvalid` for a batch discount that can't be published."""
    if not discount.is_finite() or not 0 <= discount <= 1 or discount != round(discount, 2):
        raise PricesInvalid(
            f"a batch discount must be between 0 and 1 with at most two decimal places, unlike {discount}",
            param="batch_discount",
        )


def _faults(terms: RateTerms) -> Iterator[str]:
    """Yield why a rate can't be published; later checks rely on earlier ones."""
    if terms.gpu_class and terms.meter not in _GPU_METERS:
        yield f"only {' and '.join(_GPU_METERS)} have a price by GPU class"
    if (terms.model or terms.tier) and terms.meter in _METERS_WITHOUT_JOB:
        yield f"{terms.meter} has no price by model or tier"
    for name, length in ((terms.gpu_class, 40), (terms.model, 100), (terms.tier, 10)):
        if not is_line(name, chars_max=length):
            yield f"a name must have at most {length} printable characters"
    if bool(terms.tiers) != (terms.mode != Rate.Mode.FLAT):
        yield f"a {terms.mode} price has {'no tiers' if terms.tiers else 'one tier at least'}"
    for price in (terms.unit_price, *(price for _, price in terms.tiers)):
        yield from _number_faults("price", price, below=PRICE_MAX)
    before = Decimal(0)
    for above, _ in terms.tiers:
        yield from _number_faults("beginning of a tier", above, below=ABOVE_MAX)
        if above <= before:
            yield f"each tier must begin above 0 and above the one before, unlike {above}"
        before = above


def _number_faults(what: str, number: Decimal, *, below: Decimal) -> Iterator[str]:
    if not number.is_finite() or not 0 <= number < below:
        yield f"a {what} must be 0 or more and below {below:f}, unlike {number}"
    exponent = number.normalize().as_tuple().exponent
    if isinstance(exponent, int) and exponent < -PLACES:
        yield f"a {what} must have at most {PLACES} decimal places, unlike {number}"


def _check_no_gap(rates: Iterable[RateTerms]) -> None:
    """Refuse a list without general prices of the required meters: it would stop requests that are admitted today."""
    general = {terms.meter for terms in rates if not (terms.model or terms.gpu_class or terms.tier)}
    if missing := sorted(REQUIRED - general):
        raise PricesInvalid(
            f"a list needs a price, which may be 0, of {', '.join(missing)} for any model, GPU class and tier"
        )


def _add(book: PriceBook, rates: Sequence[RateTerms]) -> None:
    created = Rate.objects.bulk_create(
        Rate(price_book=book, **{name: getattr(terms, name) for name in _RATE_FIELDS}) for terms in rates
    )
    PriceTier.objects.bulk_create(
        PriceTier(rate=rate, above=above, unit_price=unit_price)
        for rate, terms in zip(created, rates, strict=True)
        for above, unit_price in terms.tiers
    )


def rates_of(book: PriceBook) -> QuerySet[Rate]:
    """Return a book's rates in their display order."""
    return book.rates.prefetch_related("tiers").order_by("meter", "model", "gpu_class", "tier")


def list_at(*, currency: str, now: datetime) -> PriceBook | None:
    """Return the list in force at an instant."""
    books = PriceBook.objects.filter(tenant=None, currency=currency, effective_at__lte=now)
    return books.order_by("-effective_at").first()


def rates_details(rates: Iterable[RateTerms]) -> dict[str, str]:
    """Return each rate's name with its prices, for the audit log."""
    return {terms.name: terms.price_text for terms in rates}
