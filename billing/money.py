"""Converts amounts between currency units and micro-units, with one rounding, and formats them."""

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal

from typing_extensions import TypedDict  # pydantic reads the one of Python 3.12 and later

MICROS = 1_000_000
# Maximum that people may set or move at once: a billion units, of which thousands fit into a balance.
AMOUNT_MICROS_MAX = 10**15
# Keeps all digits of the product of any quantity and price: `to_micros` is the only rounding.
EXACT = Context(prec=100)


def to_micros(amount: Decimal) -> int:
    """Convert currency units to micro-units, rounded half to even."""
    return int(amount.scaleb(6, EXACT).to_integral_value(rounding=ROUND_HALF_EVEN))


def from_micros(amount_micros: int) -> Decimal:
    """Convert micro-units to currency units, exactly."""
    return Decimal(amount_micros) / MICROS


def format_micros(amount_micros: int, currency: str) -> str:
    """Format an amount with its currency: `0.001250 USD`."""
    return f"{from_micros(amount_micros):.6f} {currency}"


def plain(number: Decimal) -> str:
    """Format a number without an exponent and without zeros at its end: `1000`, `0.5`."""
    return f"{number.normalize():f}"


class Money(TypedDict):
    """An amount as the API answers it."""

    amount: str
    amount_micros: int
    currency: str


def money_json(amount_micros: int, currency: str) -> Money:
    """Return an amount in the currency's unit, as text with six decimals, and in micro-units."""
    return {"amount": f"{from_micros(amount_micros):.6f}", "amount_micros": amount_micros, "currency": currency}


def cost_number(amount_micros: int) -> float:
    """Return an amount as the number that JSON shows: its shortest form is exact to the micro-unit up to a billion."""
    return amount_micros / MICROS


def amount_text(amount_micros: int, *, places: int = 6) -> str:
    """Format an amount for documents: `1,234.567800`; exact if it has no more decimal `places`."""
    return f"{from_micros(amount_micros):,.{places}f}"


def places_of(amounts_micros: Iterable[int]) -> int:
    """Return 2 if all amounts are whole cents, else 6: the decimal places of a column of amounts."""
    return 6 if any(amount % 10_000 for amount in amounts_micros) else 2
