"""Amounts of money and their one rounding."""

from decimal import ROUND_HALF_EVEN, Context, Decimal

MICROS = 1_000_000
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


def amount_text(amount_micros: int) -> str:
    """For statements, exact, with two places at least: `12.50`, `0.001250`."""
    text = f"{from_micros(amount_micros):,.6f}"
    return text[:-4] if text.endswith("0000") else text
