import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.money import AMOUNT_MICROS_MAX, cost_number


@pytest.mark.parametrize(
    ("amount_micros", "number"),
    [(4_000, "0.004"), (1_700, "0.0017"), (300_000, "0.3"), (0, "0.0"), (12_345_678, "12.345678"), (-500, "-0.0005")],
)
def test_a_cost_is_a_json_number_without_binary_noise(amount_micros, number):
    assert json.dumps(cost_number(amount_micros)) == number


@given(st.integers(-AMOUNT_MICROS_MAX, AMOUNT_MICROS_MAX))
def test_a_cost_as_a_json_number_is_exact_to_the_micro_unit(amount_micros):
    assert Decimal(json.dumps(cost_number(amount_micros))) * 1_000_000 == amount_micros
