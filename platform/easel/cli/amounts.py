"""Amounts of money as commands take them."""

from decimal import Decimal, InvalidOperation
from typing import Any

import click


class Amount(click.ParamType[Decimal]):
    """A positive amount of money with at most six places, or any from `least` on."""

    name = "amount"

    def __init__(self, least: Decimal = Decimal("0.000001")) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        try:
            amount = Decimal(str(value))
        except InvalidOperation:
            self.fail(f"{value!r} is not an amount, for example 10 or 2.50", param, ctx)
        # Bounded before it is rounded: 1e999999999 is a short text and a very long number.
        if not amount.is_finite() or not self.least <= amount < 10**9 or amount != round(amount, 6):
            self.fail(f"{value} is not between {self.least:f} and 999999999, with at most 6 places", param, ctx)
        return amount


class SignedAmount(Amount):
    """An amount other than zero, either way."""

    def __init__(self) -> None:
        super().__init__(least=-Decimal(10**9) + 1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        amount = super().convert(value, param, ctx)
        if not amount:
            self.fail("0 moves nothing", param, ctx)
        return amount
