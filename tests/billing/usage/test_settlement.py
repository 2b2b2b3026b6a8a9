"""What is charged for what was measured: tiers, contracts, what nobody prices."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from django.db import connections

from billing.ledger.accounts import balances_by_kind
from billing.models import BillingProfile, Charge, Meter, MonthlyQuantity, UsageRecord
from billing.pricing.contracts import contract_make
from billing.pricing.price_books import RateTerms, price_book_publish, price_book_seed
from billing.pricing.rating import Prices, Quantity, Tariff
from billing.usage.metering import usage_meter
from billing.usage.settlement import settle
from tests.conftest import NOW, take_hold

UNIT, REQUEST = Meter.IMAGE_UNIT, Meter.REQUEST
THREADS = 4


@pytest.fixture
def publish(currency):
    """Prices of this test alone, in force since long ago."""

    def make(*rates, tenant=None):
        if tenant is not None:
            return price_book_publish(currency=currency, tenant=tenant, rates=rates, now=NOW)
        return price_book_seed(
            currency=currency, version=1, rates=rates, effective_at=NOW - timedelta(days=999), now=NOW
        )

    return make


@pytest.fixture
def dana(customer, currency):
    return customer(name="dana", currency=currency, credit="1000")


def tiered(mode, first, *tiers, meter=UNIT):
    return RateTerms(
        meter=meter,
        unit_price=Decimal(first),
        mode=mode,
        tiers=tuple((Decimal(above), Decimal(price)) for above, price in tiers),
    )


def flat(price, meter=UNIT, **dimensions):
    return RateTerms(meter=meter, unit_price=Decimal(price), **dimensions)


def use(customer, units, *, now=NOW, meter=UNIT, held=None, job_id=None, **dimensions):
    job_id = job_id or uuid.uuid4()
    quantities = [Quantity(meter=meter, amount=Decimal(units))]
    prices = Prices.in_force(tenant=customer.tenant, now=now)
    bound = [replace(quantity, **dimensions) for quantity in quantities]
    hold_micros = prices.max_micros(bound) if held is None else held
    take_hold(tenant=customer.tenant, amount_micros=hold_micros, reference=job_id, now=now)
    return settle(
        project=customer.project, job_id=job_id, quantities=quantities, dimensions=dimensions, prices=prices, now=now
    )


def charges(customer):
    return list(Charge.objects.filter(usage_record__tenant=customer.tenant).order_by("used_before", "pk"))


def test_graduated_units_are_priced_by_where_in_the_month_they_are(dana, publish):
    publish(tiered("graduated", 2, (10, 1)))
    assert [use(dana, 8), use(dana, 4), use(dana, 1)] == [16_000_000, 6_000_000, 1_000_000]
    assert [charge.used_before for charge in charges(dana)] == [0, 8, 12]


def test_a_free_allowance_is_a_first_price_of_nothing(dana, publish):
    publish(tiered("graduated", 0, (5, "0.5")))
    assert [use(dana, 4), use(dana, 4), use(dana, 4)] == [0, 1_500_000, 2_000_000]


def test_volume_units_are_priced_by_the_tier_that_the_month_has_reached(dana, publish):
    publish(tiered("volume", 2, (10, 1)))
    assert [use(dana, 8), use(dana, 4)] == [16_000_000, 4_000_000]


def test_a_month_is_one_of_the_tenants_own_time_zone(dana, publish):
    publish(tiered("graduated", 2, (1, 1)))
    BillingProfile.objects.create(tenant=dana.tenant, time_zone="Asia/Tokyo", updated_at=NOW)
    april_in_tokyo = datetime(2026, 3, 31, 15, tzinfo=UTC)
    moments = (april_in_tokyo - timedelta(seconds=1), april_in_tokyo, april_in_tokyo + timedelta(days=20))
    assert [use(dana, 1, now=now) for now in moments] == [2_000_000, 2_000_000, 1_000_000]


def test_tenants_have_months_of_their_own(dana, customer, currency, publish):
    publish(tiered("graduated", 2, (1, 1)))
    erin = customer(name="erin", currency=currency, credit="100")
    assert [use(dana, 1), use(erin, 1), use(dana, 1)] == [2_000_000, 2_000_000, 1_000_000]


def test_a_settlement_repeated_moves_the_month_once(dana, publish):
    publish(tiered("graduated", 2, (1, 1)))
    job_id = uuid.uuid4()
    assert [use(dana, 3, job_id=job_id) for _ in range(3)] == [4_000_000] * 3
    assert MonthlyQuantity.objects.get(tenant=dana.tenant).quantity == 3


def test_tiers_are_exact_whatever_ends_at_once(dana, publish):
    book = publish(tiered("graduated", "0.3", (7, "0.2"), (20, "0.1")))
    start = threading.Barrier(THREADS)

    def work(number):
        start.wait()
        try:
            for amount in range(1, 6):
                use(dana, amount + number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(work, range(THREADS)))
    made = charges(dana)
    ends = [(charge.used_before, charge.used_before + charge.usage_record.quantity) for charge in made]
    assert ends[0][0] == 0
    assert all(end == begin for (_, end), (begin, _) in pairwise(ends))
    whole = Tariff.of(book.rates.get()).micros(ends[-1][1])
    assert sum(charge.amount_micros for charge in made) == whole  # whole tenths: nothing to round
    assert MonthlyQuantity.objects.get(tenant=dana.tenant).quantity == ends[-1][1]


def test_the_price_of_a_charge_is_that_of_its_model_and_tier(dana, publish):
    publish(flat(1), flat(2, model="m"), flat(3, model="m", tier="hd"), flat(4, tier="hd"))
    assert use(dana, 1, model="m", tier="hd") == 3_000_000
    assert use(dana, 1, model="m", tier="fast") == 2_000_000
    assert use(dana, 1, model="n", tier="hd") == 4_000_000
    assert use(dana, 1) == 1_000_000


def test_a_contract_is_on_the_charge_with_its_discount_and_what_the_list_would_have_asked(dana, publish):
    publish(flat(1), flat("0.5", meter=REQUEST))
    book = publish(flat("0.8"), tenant=dana.tenant)
    contract = contract_make(tenant=dana.tenant, price_book=book, discount=Decimal("0.25"), now=NOW)
    assert [use(dana, 10), use(dana, 1, meter=REQUEST)] == [6_000_000, 375_000]
    made = charges(dana)
    assert {(charge.contract, charge.discount) for charge in made} == {(contract, Decimal("0.25"))}
    assert sorted(charge.list_micros for charge in made) == [500_000, 10_000_000]
    assert balances_by_kind(dana.tenant)["revenue"] == 6_375_000


def test_no_charge_passes_its_hold(dana, publish):
    publish(tiered("graduated", 1, (5, 3)))
    assert use(dana, 10, held=7_000_000) == 7_000_000
    assert sorted((charge.kind, charge.amount_micros) for charge in charges(dana)) == [
        ("usage", 20_000_000),
        ("waiver", -13_000_000),
    ]


def test_what_nobody_prices_is_recorded_and_not_charged(dana, publish):
    publish(flat(1))
    assert use(dana, 1, meter=Meter.CACHE_HIT) == 0
    metered = usage_meter(
        project=dana.project,
        quantity=Quantity(meter=Meter.STORAGE_GB_SECOND, amount=Decimal(7)),
        dimensions={"kind": "output"},
        source="storage",
        key=f"storage/{dana.project.pk}",
        occurred_at=NOW,
        description="storage",
        now=NOW,
    )
    assert metered
    recorded = UsageRecord.objects.filter(tenant=dana.tenant, charges=None)
    assert {record.meter for record in recorded} == {"cache_hit", "storage_gb_second"}
    assert balances_by_kind(dana.tenant)["revenue"] == 0


def test_what_is_metered_without_a_hold_has_tiers_too_and_is_charged_once(dana, publish):
    publish(tiered("graduated", 2, (10, 1), meter=Meter.POOL_SECOND))
    for key in ("one", "one", "two"):
        usage_meter(
            project=dana.project,
            quantity=Quantity(meter=Meter.POOL_SECOND, amount=Decimal(8)),
            dimensions={"pool": "dana"},
            source="worker",
            key=f"{dana.tenant.slug}/{key}",
            occurred_at=NOW,
            description="a pool",
            now=NOW,
        )
    assert [charge.amount_micros for charge in charges(dana)] == [16_000_000, 10_000_000]
