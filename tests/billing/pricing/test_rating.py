from datetime import timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.models import Meter, Rate
from billing.money import to_micros
from billing.pricing.contracts import contract_make
from billing.pricing.price_books import RateTerms, price_book_publish
from billing.pricing.rating import REQUIRED, PriceMissing, Prices, Quantity, Tariff, TierPrice
from tests.conftest import NOW

FLAT, GRADUATED, VOLUME = Rate.Mode.FLAT, Rate.Mode.GRADUATED, Rate.Mode.VOLUME


def tariff(*bands, mode=FLAT, rate_id=1):
    return Tariff(
        rate_id=rate_id, mode=mode, tiers=tuple(TierPrice(Decimal(a), Decimal(p)) for a, p in bands), book="list"
    )


def flat(unit_price, rate_id=1):
    return tariff((0, unit_price), rate_id=rate_id)


LISTED = {
    (Meter.GPU_SECOND, "", "", ""): flat("0.00125", 1),
    (Meter.GPU_SECOND, "", "cpu", ""): flat("0.0001", 2),
    (Meter.IMAGE_UNIT, "", "", ""): flat("0.002", 3),
    (Meter.REQUEST, "", "", ""): flat("0.0005", 4),
}
PRICES = Prices("USD", LISTED)


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
    line = PRICES.line(Quantity(meter=meter, amount=Decimal(amount), gpu_class=gpu_class))
    assert (line.amount_micros, line.list_micros) == (micros, micros)


@pytest.mark.parametrize("mode", Rate.Mode)
@pytest.mark.parametrize(
    ("used_before", "amount", "graduated", "volume"),
    [
        ("0", "10", "20", "20"),  # up to the tier's very beginning: the price before it
        ("0", "11", "21", "11"),
        ("8", "4", "6", "4"),
        ("10", "1", "1", "1"),
        ("99", "11", "6", "5.5"),
        ("0", "0", "0", "0"),
    ],
)
def test_tiers_price_units_by_where_in_the_month_they_are(mode, used_before, amount, graduated, volume):
    rate = tariff((0, 2), (10, 1), (100, "0.5"), mode=mode)
    expected = {FLAT: Decimal(amount) * 2, GRADUATED: Decimal(graduated), VOLUME: Decimal(volume)}
    assert rate.micros(Decimal(amount), used_before=Decimal(used_before)) == to_micros(expected[mode])


def test_the_rate_that_names_the_model_goes_before_the_gpu_class_and_that_before_the_tier():
    names = [(model, gpu, tier) for model in ("m", "") for gpu in ("g", "") for tier in ("t", "")]
    rates = {(Meter.GPU_SECOND, *name): flat(1, number) for number, name in enumerate(names)}
    for number, name in enumerate(names):
        asked = Quantity(meter=Meter.GPU_SECOND, amount=Decimal(1), model="m", gpu_class="g", tier="t")
        assert Prices("USD", rates).tariff(asked).rate_id == number
        del rates[Meter.GPU_SECOND, *name]
    assert Prices("USD", {(Meter.GPU_SECOND, "other", "", ""): flat(1)}).tariff(asked) is None


def test_a_contracts_rates_go_before_the_lists_whose_price_is_shown_too():
    own = {(Meter.IMAGE_UNIT, "", "", ""): flat("0.001", 9)}
    prices = Prices("USD", {**LISTED, (Meter.IMAGE_UNIT, "m", "", ""): flat("0.003", 7)}, own, discount=Decimal("0.1"))
    units = prices.line(Quantity(meter=Meter.IMAGE_UNIT, amount=Decimal(1), model="m"))
    assert (units.tariff.rate_id, units.amount_micros, units.list_micros) == (9, 900, 3000)
    request = prices.line(Quantity(meter=Meter.REQUEST, amount=Decimal(1)))
    assert (request.tariff.rate_id, request.amount_micros, request.list_micros) == (4, 450, 500)


def test_what_a_request_needs_is_refused_without_a_price_and_the_rest_is_not():
    nothing = Prices("XTS", {})
    with pytest.raises(PriceMissing, match="gpu_second h200 in XTS"):
        nothing.max_micros([Quantity(meter=Meter.GPU_SECOND, amount=Decimal(1), gpu_class="h200")])
    hit = Quantity(meter=Meter.CACHE_HIT, amount=Decimal(1))
    assert (nothing.max_micros([hit]), nothing.line(hit)) == (0, None)


amounts = st.decimals(0, 10_000, places=9)
places = st.decimals(0, 10_000, places=15)
unit_prices = st.decimals(0, 10, places=15)
discounts = st.decimals(0, 1, places=6)
steps = st.lists(st.tuples(st.decimals("0.000001", 3_000, places=6), unit_prices), min_size=1, max_size=4)


@st.composite
def tariffs(draw, modes=tuple(Rate.Mode)):
    mode, bands = draw(st.sampled_from(modes)), [(Decimal(0), draw(unit_prices))]
    if mode != FLAT:
        for wide, unit_price in draw(steps):
            bands.append((bands[-1][0] + wide, unit_price))
    return tariff(*bands, mode=mode)


HALF = Decimal("0.5")


@given(tariffs(modes=(FLAT, GRADUATED)), places, st.lists(amounts, min_size=1, max_size=8), discounts)
def test_a_month_costs_the_same_however_it_is_split_to_half_a_micro_each(rate, used_before, split, discount):
    whole = rate.micros(sum(split), used_before=used_before, discount=discount)
    parts, at_now = 0, used_before
    for amount in split:
        parts += rate.micros(amount, used_before=at_now, discount=discount)
        at_now += amount
    assert abs(parts - whole) <= HALF * (len(split) + 1)


@given(tariffs(), places, amounts, discounts)
def test_no_quantity_costs_less_than_nothing_and_a_discount_never_more_than_the_whole(rate, used_before, amount, off):
    assert (
        0 <= rate.micros(amount, used_before=used_before, discount=off) <= rate.micros(amount, used_before=used_before)
    )
    assert rate.micros(amount, used_before=used_before, discount=Decimal(1)) == 0


@given(tariffs(modes=(FLAT, GRADUATED)), places, st.lists(amounts, min_size=2, max_size=6), discounts)
def test_more_never_costs_less(rate, used_before, some, discount):
    micros = [rate.micros(amount, used_before=used_before, discount=discount) for amount in sorted(some)]
    assert all(less <= more for less, more in pairwise(micros))


@given(tariffs(), tariffs(), st.lists(st.tuples(amounts, places, st.decimals(0, 1, places=9)), max_size=4), discounts)
def test_the_hold_covers_whatever_is_used_of_it_wherever_in_the_month(listed, own, used, discount):
    prices = Prices(
        "USD", {(Meter.IMAGE_UNIT, "", "", ""): listed}, {(Meter.IMAGE_UNIT, "m", "", ""): own}, discount=discount
    )
    bounds = [
        Quantity(meter=Meter.IMAGE_UNIT, amount=units, model=("m", "")[n % 2]) for n, (units, *_) in enumerate(used)
    ]
    lines = [
        prices.line(Quantity(meter=Meter.IMAGE_UNIT, amount=bound.amount * share, model=bound.model), used_before=where)
        for bound, (_, where, share) in zip(bounds, used, strict=True)
    ]
    assert sum(line.amount_micros for line in lines) <= prices.max_micros(bounds)


@given(tariffs(), places, amounts, discounts)
def test_the_parts_of_a_quantity_are_all_of_it(rate, used_before, amount, discount):
    assert sum(part.amount for part in rate.parts(amount, used_before)) == amount


@given(tariffs(), places, st.lists(st.decimals(-10_000, 10_000, places=9), max_size=6), discounts)
def test_corrections_lead_to_what_the_month_costs_with_the_right_sum(rate, total, differences, discount):
    def month(units):
        if rate.mode == VOLUME:
            return rate.micros(units, discount=discount)
        return rate.correction_micros(units, discount=discount)

    charged, now_at = month(total), total
    for difference in differences:
        difference = max(difference, -now_at)
        charged += rate.correction_micros(difference, used_before=now_at, discount=discount)
        now_at += difference
    assert abs(charged - month(now_at)) <= HALF * (len(differences) + 2)


def test_a_later_price_book_leaves_earlier_instants_alone(customer):
    eve = customer(currency="EVE")
    for price, after in (("0.5", 0), ("1", 30)):
        rates = [RateTerms(meter=meter, unit_price=Decimal(price)) for meter in sorted(REQUIRED)]
        price_book_publish(currency="EVE", rates=rates, effective_at=NOW + timedelta(days=after), now=NOW)
    request = Quantity(meter=Meter.REQUEST, amount=Decimal(1))
    days = (-1, 0, 29, 30)
    lines = [Prices.in_force(tenant=eve.tenant, now=NOW + timedelta(days=day)).line(request) for day in days]
    assert [line and line.amount_micros for line in lines] == [None, 500_000, 500_000, 1_000_000]


def test_a_contract_prices_from_its_beginning_until_before_its_end(customer, prices):
    carol = customer(name="carol")
    rates = [RateTerms(meter=Meter.REQUEST, unit_price=Decimal(1))]
    book = price_book_publish(currency="USD", tenant=carol.tenant, rates=rates, now=NOW)
    month = timedelta(days=30)
    contract_make(
        tenant=carol.tenant,
        price_book=book,
        discount=Decimal("0.25"),
        starts_at=NOW + month,
        ends_at=NOW + 2 * month,
        now=NOW,
    )
    request = Quantity(meter=Meter.REQUEST, amount=Decimal(1))
    instant = timedelta(microseconds=1)
    lines = [
        Prices.in_force(tenant=carol.tenant, now=NOW + moment).line(request)
        for moment in (month - instant, month, 2 * month - instant, 2 * month)
    ]
    assert [line.amount_micros for line in lines] == [500, 750_000, 750_000, 500]
    assert [line.list_micros for line in lines] == [500] * 4
