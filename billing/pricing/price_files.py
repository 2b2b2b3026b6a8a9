"""Reads price files in YAML or JSON:

currency: EUR                        # default: USD
effective_at: 2027-01-01T00:00:00Z   # default: when it is published
bills_stopped_work: false
rates:
  - {meter: request, price: 0.0005}
  - {meter: gpu_second, gpu_class: h200, price: 0.00125}
  - meter: image_unit
    model: z-image-turbo
    tier: hd
    mode: graduated                  # or volume; default: flat
    price: 0                         # of the first 1000 units of a month
    tiers: [{above: 1000, price: 0.002}, {above: 100000, price: 0.0015}]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import yaml

from billing.pricing.models import Meter, Rate
from billing.pricing.price_books import PricesInvalid, RateTerms, rates_check

_LENGTH_MAX = 1_000_000
_TEXTS = ("gpu_class", "model", "tier")


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceFile:
    rates: tuple[RateTerms, ...]
    currency: str = "USD"
    effective_at: datetime | None = None
    bills_stopped_work: bool = False


def price_file_read(text: str) -> PriceFile:
    """Parse a price file. Raises `PricesInvalid`, which names the place of the error."""
    given = _fields(_loaded(text), ("currency", "effective_at", "bills_stopped_work", "rates"), "the file")
    currency = _text(given.get("currency", "USD"), "currency")
    if len(currency) != 3 or not currency.isascii() or not currency.isupper():
        raise PricesInvalid(f"{currency!r} is not a currency: use three letters, for example USD")
    return PriceFile(
        rates=_rates(given.get("rates", [])),
        currency=currency,
        effective_at=_instant(given["effective_at"]) if "effective_at" in given else None,
        bills_stopped_work=_choice(given.get("bills_stopped_work", "false"), ("true", "false")) == "true",
    )


def rates_read(text: str) -> tuple[RateTerms, ...]:
    """Parse a list of rates. Raises `PricesInvalid`."""
    return _rates(_loaded(text))


def _loaded(text: str) -> Any:
    if len(text) > _LENGTH_MAX:
        raise PricesInvalid(f"the file has {len(text)} characters; the limit is {_LENGTH_MAX}")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise PricesInvalid("aliases (*name) are not supported: write the value out")
        # Every value stays text: a price must not become a float on its way.
        return yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - makes only texts, lists and mappings
    except (yaml.YAMLError, RecursionError) as error:
        raise PricesInvalid(f"the file is neither YAML nor JSON: {' '.join(str(error).split())[:200]}") from error


def _rates(given: Any) -> tuple[RateTerms, ...]:
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise PricesInvalid("rates must be a list, for example [{meter: request, price: 0.0005}]")
    rates = tuple(_rate(one, f"rate {number}") for number, one in enumerate(given, 1))
    rates_check(rates)
    return rates


def _rate(given: Any, where: str) -> RateTerms:
    fields = _fields(given, ("meter", "price", "mode", "tiers", *_TEXTS), where)
    for needed in ("meter", "price"):
        if needed not in fields:
            raise PricesInvalid(f"{where} has no {needed}")
    tiers = fields.get("tiers", [])
    if not isinstance(tiers, list):
        raise PricesInvalid(f"{where}: tiers must be a list, for example [{{above: 1000, price: 0.0015}}]")
    return RateTerms(
        meter=Meter(_choice(fields["meter"], Meter.values, where)),
        unit_price=_number(fields["price"], where),
        mode=Rate.Mode(_choice(fields.get("mode", "flat"), Rate.Mode.values, where)),
        tiers=tuple(_tier(one, f"{where}, tier {number}") for number, one in enumerate(tiers, 1)),
        **{name: _text(fields.get(name, ""), f"{name} of {where}") for name in _TEXTS},
    )


def _tier(given: Any, where: str) -> tuple[Decimal, Decimal]:
    fields = _fields(given, ("above", "price"), where)
    if set(fields) != {"above", "price"}:
        raise PricesInvalid(f"{where} needs exactly two fields: above and price")
    return _number(fields["above"], where), _number(fields["price"], where)


def _fields(given: Any, known: Sequence[str], where: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise PricesInvalid(f"{where} must be a mapping of {', '.join(known)}")
    if unknown := sorted(set(given) - set(known)):
        raise PricesInvalid(f"{where} has an unknown field {unknown[0]!r}; the fields are {', '.join(known)}")
    return given


def _text(given: Any, what: str) -> str:
    if not isinstance(given, str):
        raise PricesInvalid(f"{what} must be a text")
    return given


def _choice(given: Any, known: Sequence[str], where: str = "the file") -> str:
    if given not in known:
        raise PricesInvalid(f"{where}: {given!r} is not one of {', '.join(known)}")
    return str(given)


def _number(given: Any, where: str) -> Decimal:
    try:
        return Decimal(_text(given, where))
    except InvalidOperation as error:
        raise PricesInvalid(f"{where}: {given!r} is not a number") from error


def _instant(given: Any) -> datetime:
    try:
        instant = datetime.fromisoformat(_text(given, "effective_at"))
    except ValueError as error:
        raise PricesInvalid(f"effective_at: {given!r} is not a time such as 2027-01-01T00:00:00Z") from error
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
