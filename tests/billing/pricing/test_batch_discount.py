"""The work of batches costs less, by a percentage of the price book."""

import uuid
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import IntegrityError

from billing.models import Charge, Meter, PriceBook
from billing.pricing.contracts import contract_make
from billing.pricing.price_books import PricesInvalid, RateTerms, price_book_publish, price_book_seed
from billing.pricing.rating import Prices, Quantity
from billing.usage.rerating import charges_between, rerated
from billing.usage.settlement import settle
from tests.conftest import NOW, take_hold

RATES = [
    RateTerms(meter=Meter.IMAGE_UNIT, unit_price=Decimal("0.002")),
    RateTerms(meter=Meter.GPU_SECOND, unit_price=Decimal("0.0001")),
    RateTerms(meter=Meter.REQUEST, unit_price=Decimal("0.0005")),
]
UNITS = Quantity(meter=Meter.IMAGE_UNIT, amount=Decimal("0.25"))


@pytest.fixture
def olga(customer, currency):
    """A tenant whose list takes half off the work of batches, and from tomorrow on 60 %."""
    book = {"currency": currency, "rates": RATES, "now": NOW}
    price_book_seed(**book, version=1, batch_discount=Decimal("0.5"), effective_at=NOW - timedelta(days=1))
    price_book_publish(**book, batch_discount=Decimal("0.6"), effective_at=NOW + timedelta(days=1))
    return customer(name="olga", currency=currency, credit="1000")


def micros(tenant, *, in_batch, now=NOW):
    line = Prices.in_force(tenant=tenant, now=now, in_batch=in_batch).line(UNITS)
    assert line.list_micros == 500  # 0.25 x 0.002, whatever is taken off
    return line.amount_micros


def test_a_batch_pays_half_where_the_price_book_takes_half_off(olga):
    assert (micros(olga.tenant, in_batch=False), micros(olga.tenant, in_batch=True)) == (500, 250)


def test_the_discount_is_that_of_the_price_book_in_force(olga):
    assert micros(olga.tenant, in_batch=True, now=NOW + timedelta(days=1)) == 200  # 500 x 0.4


@pytest.mark.parametrize(
    ("contract", "discount", "amount"),
    [
        ("0", "0.5", 250),
        ("0.1", "0.55", 225),  # 500 x 0.9 x 0.5
        ("0.1234", "0.5617", 219),  # 500 x 0.8766 x 0.5 = 219.15
        ("0.333333", "0.666666", 167),  # 1 - 0.666667 x 0.5 = 0.6666665, half to even; 500 x 0.333334 = 166.667
        ("1", "1", 0),
    ],
)
def test_a_contracts_discount_comes_first_and_the_batchs_is_taken_off_the_rest(olga, contract, discount, amount):
    contract_make(tenant=olga.tenant, discount=Decimal(contract), now=NOW)
    assert Prices.in_force(tenant=olga.tenant, now=NOW, in_batch=True).discount == Decimal(discount)
    assert micros(olga.tenant, in_batch=True) == amount


def test_a_charge_of_a_batch_is_rated_again_to_the_same_amount(olga):
    prices, job_id = Prices.in_force(tenant=olga.tenant, now=NOW, in_batch=True), uuid.uuid4()
    take_hold(tenant=olga.tenant, amount_micros=prices.max_micros([UNITS]), reference=job_id, now=NOW)
    settle(project=olga.project, job_id=job_id, quantities=[UNITS], dimensions={"batch": "yes"}, prices=prices, now=NOW)
    charges = charges_between(tenant=olga.tenant, start=None, end=None)
    assert (charges.get().amount_micros, charges.get().discount) == (250, Decimal("0.5"))
    assert list(rerated(charges)) == []


def test_half_off_for_work_that_no_batch_asked_for_is_found(olga):
    prices, job_id = Prices.in_force(tenant=olga.tenant, now=NOW, in_batch=True), uuid.uuid4()
    take_hold(tenant=olga.tenant, amount_micros=500, reference=job_id, now=NOW)
    settle(project=olga.project, job_id=job_id, quantities=[UNITS], dimensions={}, prices=prices, now=NOW)
    assert [found.what for found in rerated(Charge.objects.filter(usage_record__job_id=job_id))] == ["discount"]


@pytest.mark.parametrize("discount", ["-0.01", "1.01", "0.005", "NaN", "Infinity"])
def test_a_batch_discount_is_a_whole_percentage(currency, discount):
    with pytest.raises(PricesInvalid, match="batch discount"):
        price_book_publish(currency=currency, rates=RATES, batch_discount=Decimal(discount), now=NOW)
    assert not PriceBook.objects.filter(currency=currency).exists()


def test_the_database_refuses_a_discount_of_more_than_everything(currency):
    with pytest.raises(IntegrityError, match="price_book_batch_discount_in_range"):
        PriceBook.objects.create(
            currency=currency, version=1, effective_at=NOW, created_at=NOW, batch_discount=Decimal("1.01")
        )
