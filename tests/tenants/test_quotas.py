import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.db import DatabaseError, connections, transaction
from hypothesis import given
from hypothesis import strategies as st

from core.pipeline import run_query
from tenants.keys import key_issue
from tenants.models import Quota
from tenants.quotas import (
    ImageQuotaExceeded,
    QuotaInvalid,
    limit_exceeded,
    next_month,
    quota_set,
    quotas_of,
    units_return,
    units_take,
    units_used,
)
from tests.conftest import NOW, PEPPER


def limit(customer, *, key=None, **limits):
    quota_set(tenant=customer.tenant, api_key=key, limits=limits, now=NOW)


def take(customer, units, *, now=NOW):
    with transaction.atomic():
        run_query(units_take(api_key=customer.key, quotas=quotas_of(customer.key), image_units=Decimal(units), now=now))


def used(customer, *, now=NOW):
    return units_used(customer.key, now=now)[None]


@pytest.mark.parametrize(
    ("account", "key", "value", "owner"),
    [
        (100, 200, 100, "your account's limit"),
        (200, 100, 100, "this API key's limit"),
        (None, 100, 100, "this API key's limit"),
        (100, None, 100, "your account's limit"),
        (0, 100, 0, "your account's limit"),
    ],
)
def test_the_tightest_limit_wins_and_says_whose_it_is(alice, account, key, value, owner):
    limit(alice, pixels_max=account)
    limit(alice, key=alice.key, pixels_max=key)
    found = limit_exceeded(quotas_of(alice.key), "pixels_max", amount=10**9)
    assert (found.value, found.owner) == (value, owner)


def test_no_limit_is_no_bound(alice):
    assert limit_exceeded(quotas_of(alice.key), "steps_max", amount=10**9) is None


def test_a_limit_that_is_lifted_is_gone(alice):
    limit(alice, steps_max=4)
    limit(alice, steps_max=None)
    assert limit_exceeded(quotas_of(alice.key), "steps_max", amount=10**9) is None


def test_another_keys_limit_is_none_of_this_key(alice):
    other, _ = key_issue(project=alice.project, pepper=PEPPER, now=NOW)
    limit(alice, key=other, steps_max=1)
    assert limit_exceeded(quotas_of(alice.key), "steps_max", amount=10**9) is None


@pytest.mark.parametrize(
    "limits",
    [
        {"steps_max": -1},
        {"pixels_max": 2**40},
        {"images": 1},
        {"steps_max": 1.5},
        {"steps_max": True},
        {"steps_max": "5"},
        {"steps_max": Decimal("0.5")},
        {"image_units_per_month": Decimal("NaN")},
        {"image_units_per_month": Decimal("Infinity")},
        {"image_units_per_month": Decimal("-1")},
        {"image_units_per_month": Decimal("0.00001")},
        {"image_units_per_month": Decimal("1e400")},
        {"image_units_per_month": "٥"},
    ],
)
def test_what_is_no_limit_is_refused(alice, limits):
    with pytest.raises(QuotaInvalid):
        limit(alice, **limits)


def test_a_quota_on_another_tenants_key_is_refused_by_the_verb_and_by_the_database(alice, bob):
    with pytest.raises(QuotaInvalid):
        limit(alice, key=bob.key, steps_max=1)
    with pytest.raises(DatabaseError, match="another tenant"), transaction.atomic():
        Quota.objects.create(tenant=alice.tenant, api_key=bob.key, steps_max=1, updated_at=NOW)


def test_the_last_units_of_a_month_are_given_and_no_more(alice):
    limit(alice, image_units_per_month=Decimal(4))
    take(alice, 3)
    with pytest.raises(ImageQuotaExceeded, match="3 of 4 are used this month"):
        take(alice, "1.5")
    take(alice, 1)
    assert used(alice) == 4


def test_a_limit_of_zero_gives_nothing(alice):
    limit(alice, image_units_per_month=Decimal(0))
    with pytest.raises(ImageQuotaExceeded, match="0 of 0"):
        take(alice, "0.25")


@pytest.mark.parametrize(
    ("units", "seconds"),
    [(2, (next_month(NOW) - NOW).total_seconds()), (5, None)],  # of 4 a month
    ids=["what the next month has room for", "what no month has"],
)
def test_a_refusal_says_when_the_month_is_over_where_that_helps(alice, units, seconds):
    limit(alice, image_units_per_month=Decimal(4))
    take(alice, 3)
    with pytest.raises(ImageQuotaExceeded) as refused:
        take(alice, units)
    assert refused.value.retry_after_seconds == seconds


def test_a_keys_limit_holds_for_the_key_and_the_tenants_for_the_sum_of_all_keys(alice):
    other, _ = key_issue(project=alice.project, pepper=PEPPER, now=NOW)
    limit(alice, image_units_per_month=Decimal(5))
    limit(alice, key=alice.key, image_units_per_month=Decimal(2))
    take(alice, 2)
    with pytest.raises(ImageQuotaExceeded, match="this API key's limit"):
        take(alice, 1)
    alice.key = other
    take(alice, 3)
    with pytest.raises(ImageQuotaExceeded, match="your account's limit"):
        take(alice, 1)


def test_a_new_month_begins_at_nothing(alice):
    limit(alice, image_units_per_month=Decimal(1))
    take(alice, 1, now=datetime(2026, 3, 31, 23, 59, 59, tzinfo=UTC))
    take(alice, 1, now=datetime(2026, 4, 1, tzinfo=UTC))
    assert next_month(datetime(2026, 12, 5, tzinfo=UTC)) == datetime(2027, 1, 1, tzinfo=UTC)


def test_concurrent_requests_never_pass_the_limit(alice):
    """Twenty threads ask for a unit each of ten."""
    limit(alice, image_units_per_month=Decimal(10))
    start = threading.Barrier(20)

    def ask(_):
        start.wait()
        try:
            take(alice, 1)
        except ImageQuotaExceeded:
            return 0
        finally:
            connections.close_all()
        return 1

    with ThreadPoolExecutor(20) as threads:
        assert sum(threads.map(ask, range(20))) == 10
    assert used(alice) == 10


@given(st.lists(st.tuples(st.integers(1, 4096), st.booleans()), max_size=10))
def test_what_is_given_back_is_exactly_what_was_taken(customer, asked):
    alice = customer()
    delivered_units = Decimal(0)
    for thousandths, delivered in asked:
        units = Decimal(thousandths) / 1024
        take(alice, units)
        if delivered:
            delivered_units += units
        else:
            units_return(api_key=alice.key, image_units=units, taken_at=NOW)
    assert used(alice) == delivered_units
