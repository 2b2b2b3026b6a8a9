"""Amounts of money and their one rounding."""

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

MICROS = 1_000_000
# The most that people may set or move at once: a billion, of which thousands fit into a balance.
AMOUNT_MICROS_MAX = 10**15
# Holds a product of any quantity and any price with all its digits: the only rounding is that of `to_micros`.
EXACT = Context(prec=100)


def to_micros(amount: Decimal) -> int:
    """Micro-units of an amount in currency units, rounded half to even."""
    return int(amount.scaleb(6, EXACT).to_integral_value(rounding=ROUND_HALF_EVEN))


def from_micros(amount_micros: int) -> Decimal:
    """Currency units of an amount in micro-units, exactly."""
    return Decimal(amount_micros) / MICROS


def format_micros(amount_micros: int, currency: str) -> str:
    """For people: `0.001250 USD`."""
    return f"{from_micros(amount_micros):.6f} {currency}"


def money_json(amount_micros: int, currency: str) -> dict[str, Any]:
    """An amount as the API answers it."""
    return {
        "amount": f"{from_micros(amount_micros):.6f}",
        "amount_micros": amount_micros,
        "currency": currency,
    }


def amount_text(amount_micros: int, *, places: int = 6) -> str:
    """For documents: `1,234.567800`; exact, if `places` are enough for it."""
    return f"{from_micros(amount_micros):,.{places}f}"


def places_of(amounts_micros: Iterable[int]) -> int:
    """Two if cents are enough for all of them, else six: amounts in a column have as many places."""
    return 6 if any(amount % 10_000 for amount in amounts_micros) else 2
