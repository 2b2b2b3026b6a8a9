"""Forecasts of a month, and unusual days."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel.reporting.outlook import anomalies, forecast

DAY = timedelta(days=1)
TODAY = date(2026, 10, 12)  # a Monday


def days(amount_of, *, back=56):
    return {day: amount_of(day) for day in (TODAY - DAY * n for n in range(back, -1, -1))}


def weekly(day):
    return 20 if day.weekday() >= 5 else 100


def test_weekends_cost_what_weekends_cost():
    found = forecast(days(weekly), today=TODAY)
    # The first to the eleventh: 7 workdays and 4 days of weekends; from today on 15 and 5.
    assert found.expected_micros == 7 * 100 + 4 * 20 + 15 * 100 + 5 * 20
    assert (found.low_micros, found.high_micros) == (found.expected_micros, found.expected_micros)


def test_the_cost_of_today_counts():
    costs = {**days(weekly), TODAY: 1000}
    assert forecast(costs, today=TODAY).expected_micros == forecast(days(weekly), today=TODAY).expected_micros + 900


def test_a_week_is_too_short_for_a_forecast():
    found = forecast(days(weekly, back=6), today=TODAY)
    assert (found.expected_micros, found.low_micros) == (None, None)
    assert found.missing.endswith("there are 6")


def test_an_interval_needs_a_weekday_twice():
    found = forecast(days(weekly, back=7), today=TODAY)
    assert (found.expected_micros is None, found.low_micros, found.missing is None) == (False, None, False)
    assert forecast(days(weekly, back=8), today=TODAY).missing is None


def test_four_of_five_months_end_inside_the_interval():
    """Simulates months with independent days; the bound allows for chance."""
    import numpy as np

    dice = np.random.default_rng(3)
    inside, months = 0, 400
    for _ in range(months):
        past = {TODAY - DAY * n: int(dice.normal(10_000, 1500)) for n in range(1, 57)}
        found = forecast({**past, TODAY: 0}, today=TODAY)
        rest = sum(dice.normal(10_000, 1500) for _ in range(20))
        before = sum(amount for day, amount in past.items() if day.month == 10)
        inside += found.low_micros <= before + rest <= found.high_micros
    assert 0.74 < inside / months < 0.86


@given(st.lists(st.integers(-(10**12), 10**12), min_size=8, max_size=57))
def test_the_interval_is_around_the_expectation_and_not_below_what_is_spent(amounts):
    costs = {TODAY - DAY * n: amount for n, amount in enumerate(amounts)}
    found = forecast(costs, today=TODAY)
    if found.low_micros is not None:
        assert found.spent_micros <= found.low_micros
        assert found.expected_micros <= found.high_micros


@pytest.mark.parametrize(("amount", "stands_out"), [(100, False), (130, True), (60, True), (101, False)])
def test_a_day_is_compared_with_its_weekday(amount, stands_out):
    found = anomalies({**days(weekly), TODAY: amount}, since=TODAY)
    assert [one.day for one in found] == ([TODAY] if stands_out else [])
    assert all(one.usual_micros == 100 for one in found)


def test_one_bad_week_does_not_hide_the_next():
    costs = {**days(weekly), TODAY - 7 * DAY: 10_000, TODAY: 10_000}
    assert [one.day for one in anomalies(costs, since=TODAY)] == [TODAY]
