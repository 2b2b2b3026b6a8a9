"""Reads price files in YAML or JSON:

currency: EUR                        # default: USD
effective_at: 2027-01-01T00:00:00Z   # default: when it is published
bills_stopped_work: false
batch_discount: 0.5                  # of the work of batches; default: 0
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

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError

from billing.pricing.models import Meter, Rate
from billing.pricing.price_books import PricesInvalid, RateTerms, rates_check
from core.clock import is_keepable

_LENGTH_MAX = 1_000_000
_TIME = "must be a time such as 2027-01-01T00:00:00Z"
# What pydantic finds, in our words: each follows the place of its field.
_MESSAGES = {
    "missing": "is required",
    "extra_forbidden": "is not known here",
    "model_type": "must be a mapping of names to values",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "too_short": "must not be empty",
    "enum": "must be one of {expected}",
    "decimal_type": "must be a number",
    "decimal_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be a text",
    "string_pattern_mismatch": "must be the three capital letters of a currency, such as USD",
    "value_error": "{error}",
}
T = TypeVar("T")


class _Read(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _TierPrice(_Read):
    above: Decimal
    price: Decimal


class _Rate(_Read):
    meter: Meter
    price: Decimal
    gpu_class: str = ""
    model: str = ""
    tier: str = ""
    mode: Rate.Mode = Rate.Mode.FLAT
    tiers: tuple[_TierPrice, ...] = ()

    def terms(self) -> RateTerms:
        tiers = tuple((tier.above, tier.price) for tier in self.tiers)
        return RateTerms(unit_price=self.price, tiers=tiers, **self.model_dump(exclude={"price", "tiers"}))


def _rates(given: Any) -> tuple[RateTerms, ...]:
    read = _checked(TypeAdapter(Annotated[list[_Rate], Field(min_length=1)]), given, place="rates")
    rates = tuple(rate.terms() for rate in read)
    rates_check(rates)
    return rates


def _instant(given: Any) -> datetime:
    # pydantic would take a number for a Unix time, and 20270101000000 for one of the year 2612.
    if not isinstance(given, str):
        raise ValueError(_TIME)
    try:
        instant = datetime.fromisoformat(given)
    except ValueError as error:
        raise ValueError(_TIME) from error
    instant = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    if not is_keepable(instant):
        raise ValueError("must be a time before the year 9999")
    return instant


def _flag(given: Any) -> bool:
    if given not in ("true", "false"):
        raise ValueError("must be true or false")
    return bool(given == "true")


class PriceFile(_Read):
    rates: Annotated[tuple[RateTerms, ...], PlainValidator(_rates)]
    currency: str = Field("USD", pattern="^[A-Z]{3}$")
    effective_at: Annotated[datetime, PlainValidator(_instant)] | None = None
    bills_stopped_work: Annotated[bool, PlainValidator(_flag)] = False
    batch_discount: Decimal = Decimal(0)


def price_file_read(text: str) -> PriceFile:
    """Parse a price file. Raises `PricesInvalid`, which names the place of the error."""
    return _checked(TypeAdapter(PriceFile), _loaded(text))


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


def _checked(kind: TypeAdapter[T], given: Any, *, place: str = "") -> T:
    try:
        return kind.validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        names = [str(part + 1) if isinstance(part, int) else part for part in first["loc"]]
        where = " ".join(filter(None, (place, *names))) or "the file"
        message = _MESSAGES.get(first["type"], first["msg"]).format(**first.get("ctx", {}))
        unlike = f", unlike {first['input'][:100]!r}" if isinstance(first["input"], str) else ""
        raise PricesInvalid(f"{where} {message}{unlike}") from error
