from datetime import timedelta
from decimal import Decimal

import pytest

from billing.models import Meter, PriceBook
from billing.pricing.contracts import (
    ContractBackdated,
    ContractInvalid,
    ContractNotFound,
    ContractOverlaps,
    contract_at,
    contract_end,
    contract_make,
)
from billing.pricing.price_books import (
    PriceBookBackdated,
    PriceBookOutdated,
    PricesInvalid,
    RateTerms,
    price_book_publish,
    rates_check,
    rates_of,
)
from billing.pricing.price_files import price_file_read
from tests.conftest import NOW

DAY = timedelta(days=1)


def terms(meter=Meter.IMAGE_UNIT, price="0.002", tiers=(), **more):
    tiers = tuple((Decimal(above), Decimal(unit_price)) for above, unit_price in tiers)
    return RateTerms(meter=meter, unit_price=Decimal(price), tiers=tiers, **more)


LIST = [terms(meter) for meter in (Meter.GPU_SECOND, Meter.IMAGE_UNIT, Meter.REQUEST)]


@pytest.mark.parametrize(
    ("rates", "why"),
    [
        ([], "no price"),
        ([terms(price="NaN")], "unlike NaN"),
        ([terms(price="Infinity")], "unlike Infinity"),
        ([terms(price="-0.000000000000001")], "0 or more"),
        ([terms(price="0.0000000000000001")], "15 decimal places"),
        ([terms(price="9999999999999999999")], "below 1000000000"),
        ([terms(price="1E+999999")], "below 1000000000"),
        ([terms(), terms(price="1")], "image_unit is priced twice"),
        ([terms(model="m"), terms(model="m")], "image_unit m is priced twice"),
        ([terms(gpu_class="h200")], "price by GPU class"),
        ([terms(Meter.POOL_SECOND, tier="hd")], "price by model or tier"),
        ([terms(model="m" * 101)], "100 printable"),
        ([terms(model="m\x00")], "100 printable"),
        ([terms(mode="graduated")], "one tier at least"),
        ([terms(tiers=[(10, 1)])], "no tiers"),
        ([terms(mode="volume", tiers=[(0, 1)])], "above 0"),
        ([terms(mode="volume", tiers=[(10, 1), (10, 2)])], "above 0 and above the one before"),
        ([terms(mode="graduated", tiers=[(10, "NaN")])], "unlike NaN"),
        ([terms(mode="graduated", tiers=[("Infinity", 1)])], "unlike Infinity"),
    ],
)
def test_what_is_no_price_is_refused_by_name(rates, why):
    with pytest.raises(PricesInvalid, match=why):
        rates_check(rates)


def test_a_book_refused_leaves_nothing(currency):
    with pytest.raises(PricesInvalid):
        price_book_publish(currency=currency, rates=[terms(), terms()], now=NOW)
    assert not PriceBook.objects.filter(currency=currency).exists()


def test_a_list_leaves_no_gap_that_would_have_every_request_refused(currency):
    named = [terms(meter, model="m") for meter in (Meter.GPU_SECOND, Meter.IMAGE_UNIT, Meter.REQUEST)]
    with pytest.raises(PricesInvalid, match="gpu_second, request for any model"):
        price_book_publish(currency=currency, rates=[*named, terms()], now=NOW)


def test_books_follow_each_other_without_overlap_or_gap_and_never_into_the_past(currency):
    first = price_book_publish(currency=currency, rates=LIST, now=NOW)
    second = price_book_publish(currency=currency, rates=LIST, effective_at=NOW + 2 * DAY, now=NOW)
    assert (first.version, first.effective_at, second.version) == (1, NOW, 2)
    for effective_at in (NOW - DAY, NOW, NOW + DAY, NOW + 2 * DAY):
        with pytest.raises(PriceBookBackdated):
            price_book_publish(currency=currency, rates=LIST, effective_at=effective_at, now=NOW)
    with pytest.raises(PriceBookOutdated):
        price_book_publish(currency=currency, rates=LIST, effective_at=NOW + 3 * DAY, version=2, now=NOW)


def test_a_price_keeps_its_dimensions_and_tiers(currency):
    rates = [
        terms(mode="graduated", price="0", tiers=[(1000, "0.002"), (10**6, "0.0015")], model="m", tier="hd"),
        terms(Meter.GPU_SECOND, "0.000000000000001", gpu_class="h200"),
    ]
    book = price_book_publish(currency=currency, rates=[*LIST, *rates], now=NOW)
    assert {RateTerms.of(rate) for rate in rates_of(book)} == {*LIST, *rates}


FILE = """
currency: EUR
effective_at: 2027-01-01T00:00:00+01:00
rates:
  - {meter: request, price: 0.1}
  - meter: image_unit
    model: z-image
    mode: graduated
    price: 0
    tiers: [{above: 1000, price: 0.002}]
"""


def test_a_file_of_prices_is_read_without_a_float_on_the_way():
    file = price_file_read(FILE)
    assert (file.currency, file.effective_at.isoformat()) == ("EUR", "2027-01-01T00:00:00+01:00")
    assert file.rates == (
        terms(Meter.REQUEST, "0.1"),
        terms(model="z-image", mode="graduated", price="0", tiers=[(1000, "0.002")]),
    )
    assert price_file_read('{"rates": [{"meter": "request", "price": 0.1}]}').rates == (terms(Meter.REQUEST, "0.1"),)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the file must be a mapping"),
        ("[", "neither YAML nor JSON"),
        ("rates: 1", "rates must be a list"),
        (
            "rates: [{meter: request, price: 1}]\neffective_at: 9999-12-31T23:59:59-14:00",
            "effective_at must be a time before the year 9999",
        ),
        ("rates: []", "rates must not be empty"),
        ("rates: [{meter: request}]", "rates 1 price is required"),
        ("rates: [{meter: smile, price: 1}]", "rates 1 meter must be one of .*'gpu_second'.*unlike 'smile'"),
        ("rates: [{meter: request, price: free}]", "rates 1 price must be a number, unlike 'free'"),
        ("rates: [{meter: request, price: [1]}]", "rates 1 price must be a number"),
        ("rates: [{meter: request, price: 1, prise: 2}]", "rates 1 prise is not known here"),
        (
            "rates: [{meter: request, price: 1, mode: volume, tiers: [{above: 1}]}]",
            "rates 1 tiers 1 price is required",
        ),
        (
            "rates: [{meter: request, price: 1}]\ncurrency: euro",
            "currency must be the three capital letters .*unlike 'euro'",
        ),
        ("rates: [{meter: request, price: 1}]\neffective_at: soon", "effective_at must be a time .*unlike 'soon'"),
        (
            "rates: [{meter: request, price: 1}]\neffective_at: 20270101000000",
            "effective_at must be a time .*unlike '20270101000000'",
        ),
        ("rates: [{meter: request, price: 1}]\neffective_at: 2027", "effective_at must be a time .*unlike '2027'"),
        (
            "rates: [{meter: request, price: 1}]\neffective_at: '1798761600'",
            "effective_at must be a time .*unlike '1798761600'",
        ),
        ("rates: [{meter: request, price: 1}]\neffective_at: [2027]", "effective_at must be a time"),
        ("rates: [{meter: request, price: 1}]\neffective_at:", "effective_at must be a time"),
        (
            "rates: [{meter: request, price: 1}]\nbills_stopped_work: maybe",
            "bills_stopped_work must be true or false, unlike 'maybe'",
        ),
        (
            "rates: [{meter: request, price: 1}]\nbills_stopped_work: yes",
            "bills_stopped_work must be true or false, unlike 'yes'",
        ),
        ("rates: [{meter: request, price: 1}]\nbatch_discount: half", "batch_discount must be a number, unlike 'half'"),
        ("rates: &a [*a]", "alias"),
        ("\x00", "neither YAML nor JSON"),
    ],
)
def test_a_file_that_is_none_is_refused_with_the_place_at_fault(text, why):
    with pytest.raises(PricesInvalid, match=why):
        price_file_read(text)


def test_contracts_of_a_tenant_follow_each_other(alice):
    first = contract_make(tenant=alice.tenant, discount=Decimal("0.1"), ends_at=NOW + 30 * DAY, now=NOW)
    with pytest.raises(ContractOverlaps):
        contract_make(tenant=alice.tenant, starts_at=NOW + 29 * DAY, now=NOW)
    contract_end(tenant=alice.tenant, ends_at=NOW + 20 * DAY, now=NOW + DAY)
    second = contract_make(tenant=alice.tenant, starts_at=NOW + 20 * DAY, now=NOW)
    in_force = [contract_at(tenant=alice.tenant, now=NOW + days * DAY) for days in (-1, 0, 19, 20, 999)]
    assert in_force == [None, first, first, second, second]


def test_a_contract_ends_sooner_or_not_at_all(alice):
    with pytest.raises(ContractNotFound):
        contract_end(tenant=alice.tenant, now=NOW)
    contract_make(tenant=alice.tenant, ends_at=NOW + 30 * DAY, now=NOW)
    with pytest.raises(ContractBackdated):
        contract_end(tenant=alice.tenant, ends_at=NOW + DAY, now=NOW + 2 * DAY)
    with pytest.raises(ContractInvalid, match="already: make another"):
        contract_end(tenant=alice.tenant, ends_at=NOW + 31 * DAY, now=NOW)


@pytest.mark.parametrize(
    ("agreed", "refusal"),
    [
        ({"discount": Decimal("1.1")}, ContractInvalid),
        ({"discount": Decimal("NaN")}, ContractInvalid),
        ({"discount": Decimal("-0.1")}, ContractInvalid),
        ({"discount": Decimal("0.0000001")}, ContractInvalid),
        ({"minimum_micros": -1}, ContractInvalid),
        ({"minimum_micros": 9_999_999_999_999_999_999}, ContractInvalid),
        ({"starts_at": NOW - timedelta(microseconds=1)}, ContractBackdated),
        ({"ends_at": NOW}, ContractInvalid),
    ],
)
def test_what_can_not_be_agreed_on_is_refused(alice, agreed, refusal):
    with pytest.raises(refusal):
        contract_make(tenant=alice.tenant, **agreed, now=NOW)
    assert not alice.tenant.contracts.exists()


def test_a_contract_takes_no_prices_of_another_tenant_or_currency(alice, bob, currency):
    foreign = price_book_publish(currency="USD", tenant=bob.tenant, rates=[terms()], now=NOW)
    other = price_book_publish(currency=currency, tenant=alice.tenant, rates=[terms()], now=NOW)
    for book in (foreign, other):
        with pytest.raises(ContractInvalid, match="has no prices"):
            contract_make(tenant=alice.tenant, price_book=book, now=NOW)
