import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing.ledger.accounts import balances_by_kind
from billing.models import Charge, Meter, UsageRecord
from billing.pricing.price_books import RateTerms, price_book_seed
from easel.catalog.models import Pool, WorkerDay
from easel.catalog.pool_metering import pool_day_meter, pool_days_due
from easel.catalog.workers import worker_seen
from tests.conftest import NOW, worker_beat

MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)  # NOW is noon of the day before
HOUR = timedelta(hours=1)


@pytest.fixture
def frank(customer):
    """A tenant whose currency has a price of pools."""
    currency = "".join(chr(65 + int(digit, 16)) for digit in uuid.uuid4().hex[:3])
    rates = [
        RateTerms(meter=Meter.POOL_SECOND, unit_price=Decimal("0.001")),
        RateTerms(meter=Meter.POOL_SECOND, gpu_class="h200", unit_price=Decimal("0.002")),
    ]
    price_book_seed(currency=currency, version=1, rates=rates, effective_at=NOW - timedelta(days=9), now=NOW)
    return customer(name="frank", currency=currency)


def pool_of(customer):
    slug = customer.tenant.slug
    return Pool.objects.create(
        slug=slug, namespace=f"easel-t-{slug}", tenant=customer.tenant, checkpoint="c", gpu_class="h200", created_at=NOW
    )


def see(pool, *, now, worker="w1", started_at=NOW):
    report = worker_beat(worker=worker, gpu_class="h200", started_at=started_at.timestamp())
    worker_seen(pool=pool, report=report, now=now)


def meter(pool, *, now):
    own = set(WorkerDay.objects.filter(pool=pool).values_list("pk", flat=True))
    return [pool_day_meter(day_id=day_id, now=now) for day_id in pool_days_due(now=now) if day_id in own]


def metered(customer):
    records = UsageRecord.objects.filter(tenant=customer.tenant, meter=Meter.POOL_SECOND).order_by("occurred_at", "pk")
    return [record.quantity for record in records]


def test_a_worker_is_metered_from_its_start_to_its_end_idle_or_not(frank):
    pool = pool_of(frank)
    see(pool, now=NOW + HOUR)
    see(pool, now=MIDNIGHT + timedelta(seconds=90, microseconds=1))
    assert meter(pool, now=MIDNIGHT + 25 * HOUR) == [True, True]
    assert metered(frank) == [Decimal(12 * 3600), Decimal("90.000001")]
    charges = Charge.objects.filter(usage_record__tenant=frank.tenant).order_by("usage_record__occurred_at")
    assert [charge.amount_micros for charge in charges] == [86_400_000, 180_000]
    assert {charge.usage_record.project.slug for charge in charges} == {"default"}


def test_each_workers_up_time_is_metered_without_down_time(frank):
    pool = pool_of(frank)
    for worker in ("w1", "w2"):
        see(pool, worker=worker, now=NOW + HOUR)
    see(pool, worker="w2", started_at=NOW + 5 * HOUR, now=NOW + 6 * HOUR)
    meter(pool, now=MIDNIGHT + HOUR)
    assert sum(metered(frank)) == 3 * 3600


def test_a_day_is_metered_exactly_once_when_it_is_over(frank):
    pool = pool_of(frank)
    see(pool, now=NOW + HOUR)
    assert meter(pool, now=MIDNIGHT + HOUR - timedelta(seconds=1)) == []
    assert meter(pool, now=MIDNIGHT + HOUR) == [True]
    day = WorkerDay.objects.get(pool=pool)
    assert (meter(pool, now=MIDNIGHT + 2 * HOUR), pool_day_meter(day_id=day.pk, now=MIDNIGHT + 2 * HOUR)) == ([], False)
    assert balances_by_kind(frank.tenant)["revenue"] == 7_200_000


def test_up_time_of_a_late_beat_is_another_record(frank):
    pool = pool_of(frank)
    see(pool, now=NOW + HOUR)
    meter(pool, now=MIDNIGHT + 2 * HOUR)
    see(pool, now=MIDNIGHT + 3 * HOUR)
    assert meter(pool, now=MIDNIGHT + 4 * HOUR) == [True]
    assert sorted(metered(frank)) == [3600, 11 * 3600]


def test_a_pool_without_a_price_is_recorded_and_a_shared_one_is_not(alice, pool, prices):
    own = pool_of(alice)
    for one in (own, pool):
        see(one, now=NOW + HOUR)
        meter(one, now=MIDNIGHT + HOUR)
    assert metered(alice) == [3600]
    assert balances_by_kind(alice.tenant)["revenue"] == 0
    assert WorkerDay.objects.get(pool=pool, worker="w1").metered_seconds == 0
