from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.models import Meter, PriceBook
from billing.money import from_micros, to_micros
from billing.price_books import price_book_publish
from billing.rating import PriceMissing, Prices, Quantity, total_micros
from tests.conftest import NOW

PRICES = Prices(
    "USD",
    {
        (Meter.GPU_SECOND, ""): (1, Decimal("0.00125")),
        (Meter.GPU_SECOND, "cpu"): (2, Decimal("0.0001")),
        (Meter.IMAGE_UNIT, ""): (3, Decimal("0.002")),
        (Meter.REQUEST, ""): (4, Decimal("0.0005")),
    },
)


@pytest.mark.parametrize(
    ("amount", "micros"),
    [("0.0000005", 0), ("0.0000015", 2), ("0.0000025", 2), ("0.00000250001", 3), ("1", 1_000_000)],
)
def test_amounts_round_half_to_even_at_the_micro_unit(amount, micros):
    assert to_micros(Decimal(amount)) == micros


@pytest.mark.parametrize(
    ("meter", "amount", "gpu_class", "micros"),
    [
        (Meter.GPU_SECOND, "2", "cpu", 200),
        (Meter.GPU_SECOND, "2", "h200", 2500),  # no rate of its own: the general one
        (Meter.IMAGE_UNIT, "0.25", "", 500),  # 256x256
        (Meter.IMAGE_UNIT, "4", "", 8000),  # 1024x1024
        (Meter.REQUEST, "1", "", 500),
    ],
)
def test_a_quantity_costs_its_amount_times_the_rate(meter, amount, gpu_class, micros):
    (line,) = PRICES.rate([Quantity(meter=meter, amount=Decimal(amount), gpu_class=gpu_class)])
    assert line.amount_micros == micros


def test_a_meter_without_a_rate_is_refused():
    with pytest.raises(PriceMissing, match="gpu_second h200"):
        Prices("USD", {}).rate([Quantity(meter=Meter.GPU_SECOND, amount=Decimal(1), gpu_class="h200")])


@given(st.lists(st.decimals(0, 10_000, places=9), max_size=20))
def test_charges_differ_from_the_exact_cost_by_half_a_micro_each_at_most(amounts):
    lines = PRICES.rate(Quantity(meter=Meter.GPU_SECOND, amount=amount) for amount in amounts)
    exact = sum((amount * Decimal("0.00125") for amount in amounts), Decimal(0))
    assert abs(from_micros(total_micros(lines)) - exact) <= Decimal("0.0000005") * len(amounts)


def test_a_later_price_book_leaves_earlier_instants_alone(prices):
    newest = PriceBook.objects.filter(currency="USD").order_by("-version").first()
    later = NOW + timedelta(days=3650)
    price_book_publish(
        currency="USD",
        version=newest.version + 1,
        rates={(Meter.REQUEST, ""): Decimal(1)},
        effective_at=later,
        now=NOW,
    )
    assert Prices.at(currency="USD", at=NOW).rates[Meter.REQUEST, ""][1] == Decimal("0.0005")
    assert Prices.at(currency="USD", at=later).rates[Meter.REQUEST, ""][1] == Decimal(1)


def test_a_currency_without_prices_is_refused():
    with pytest.raises(PriceMissing, match="XTS"):
        Prices.at(currency="XTS", at=NOW)
