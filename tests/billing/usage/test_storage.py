from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.ledger.accounts import balances_by_kind
from billing.ledger.postings import credit_grant
from billing.models import Charge, Meter, StoredObject, UsageRecord
from billing.usage.storage import gb_seconds, objects_deleted, objects_stored, storage_day_meter, storage_days_due
from tests.conftest import NOW

OUTPUT = StoredObject.Kind.OUTPUT
DAY = date(2025, 12, 1)  # a day of these tests alone: metering is for all tenants at once
NOON = datetime(2025, 12, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(days=2)
GB = 10**9
HALF_A_DAY = Decimal(12 * 3600)


def keep(customer, key, *, size_bytes=GB, now=NOON):
    objects_stored(project=customer.project, kind=OUTPUT, sizes={f"{customer.tenant.slug}/{key}": size_bytes}, now=now)


def drop(customer, key, *, now):
    return objects_deleted(storage_keys=[f"{customer.tenant.slug}/{key}"], now=now)


def metered(customer):
    records = UsageRecord.objects.filter(tenant=customer.tenant, meter=Meter.STORAGE_GB_SECOND)
    return {record.occurred_at.date(): record.quantity for record in records}


def test_an_object_is_metered_from_its_creation_to_its_deletion(alice, prices):
    keep(alice, "picture")
    drop(alice, "picture", now=NOON + timedelta(seconds=90))
    storage_day_meter(day=DAY, now=LATER)
    assert metered(alice) == {DAY: 90}


def test_an_object_that_lives_on_is_metered_to_the_end_of_each_day(alice, prices):
    keep(alice, "picture")
    for day in (DAY, DAY + timedelta(days=1)):
        storage_day_meter(day=day, now=LATER + timedelta(days=1))
    assert metered(alice) == {DAY: HALF_A_DAY, DAY + timedelta(days=1): 2 * HALF_A_DAY}


def test_a_deleted_object_costs_nothing_on_later_days(alice, prices):
    keep(alice, "picture")
    drop(alice, "picture", now=NOON + timedelta(hours=1))
    storage_day_meter(day=DAY + timedelta(days=1), now=LATER + timedelta(days=1))
    assert metered(alice) == {}


def test_a_byte_for_a_microsecond_is_metered_exactly(alice, prices):
    keep(alice, "bit", size_bytes=1)
    drop(alice, "bit", now=NOON + timedelta(microseconds=1))
    storage_day_meter(day=DAY, now=LATER)
    assert metered(alice) == {DAY: Decimal("1e-15")}


def test_a_day_is_charged_once_however_often_it_is_metered(alice, prices):
    keep(alice, "picture", size_bytes=1000 * GB)
    for _ in range(3):
        storage_day_meter(day=DAY, now=LATER)
    [charge] = Charge.objects.filter(usage_record__tenant=alice.tenant)
    assert charge.amount_micros == 432_000  # 1000 GB for 43,200 s at 0.00000001 a GB-second
    assert balances_by_kind(alice.tenant)["revenue"] == 432_000


def test_what_credit_does_not_cover_is_owed_and_paid_by_the_next_grant(customer, prices):
    poor = customer(credit="0.1")
    keep(poor, "archive", size_bytes=1000 * GB)
    storage_day_meter(day=DAY, now=LATER)
    balances = balances_by_kind(poor.tenant)
    assert (balances["credit"], balances["receivable"], balances["revenue"]) == (0, -332_000, 432_000)

    credit_grant(tenant=poor.tenant, amount_micros=1_000_000, reference=poor.project.id, now=NOW)
    balances = balances_by_kind(poor.tenant)
    assert (balances["credit"], balances["receivable"]) == (668_000, 0)


def test_a_day_that_is_not_over_and_settled_is_not_metered(prices):
    with pytest.raises(ValueError, match="not over"):
        storage_day_meter(day=DAY, now=datetime(2025, 12, 2, 0, 59, tzinfo=UTC))


def test_a_day_is_due_until_it_was_metered(alice, prices):
    keep(alice, "picture", now=datetime(2025, 11, 3, tzinfo=UTC))
    now = datetime(2025, 11, 5, 1, tzinfo=UTC)
    assert {date(2025, 11, 3), date(2025, 11, 4)} <= set(storage_days_due(now=now))
    storage_day_meter(day=date(2025, 11, 3), now=now)
    assert date(2025, 11, 3) not in storage_days_due(now=now)
    assert date(2025, 11, 5) not in storage_days_due(now=now)


def test_the_same_key_may_be_stored_again_after_its_deletion(alice, prices):
    keep(alice, "adapter")
    keep(alice, "adapter", now=NOON + timedelta(seconds=10))  # still there: nothing new
    drop(alice, "adapter", now=NOON + timedelta(seconds=60))
    keep(alice, "adapter", now=NOON + timedelta(seconds=100))
    drop(alice, "adapter", now=NOON + timedelta(seconds=130))
    storage_day_meter(day=DAY, now=LATER)
    assert metered(alice) == {DAY: 60 + 30}


WEEK = datetime(2025, 11, 29, tzinfo=UTC)
instants = st.timedeltas(timedelta(0), timedelta(days=7)).map(lambda passed: WEEK + passed)
lives = st.tuples(st.integers(0, 10**13), instants, instants | st.none())


@given(st.lists(lives, max_size=5))
def test_the_days_of_a_life_add_up_to_the_life(spans):
    end = WEEK + timedelta(days=8)
    objects = [
        StoredObject(size_bytes=size, created_at=created, deleted_at=max(created, deleted) if deleted else None)
        for size, created, deleted in spans
    ]
    days = [WEEK + timedelta(days=number) for number in range(8)]
    by_day = [gb_seconds(objects, start=day, end=day + timedelta(days=1)) for day in days]
    microsecond = timedelta(microseconds=1)
    lived = [o.size_bytes * (((o.deleted_at or end) - o.created_at) // microsecond) for o in objects]
    assert sum(by_day) == gb_seconds(objects, start=WEEK, end=end) == Decimal(sum(lived)).scaleb(-15)
