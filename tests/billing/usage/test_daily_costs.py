"""Sums of charges by the day: none is left out or counted twice, whenever it commits."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pytest
from django.db import DatabaseError, connections, transaction
from django.db.models import Max, Sum

from billing.invoices.corrections import correction_record
from billing.models import Charge, CostDay, DailyCost, Meter, UsageRecord
from billing.pricing.rating import Prices, Quantity
from billing.usage.daily_costs import cost_day_seal, cost_days_due
from billing.usage.settlement import settle
from easel.observability.audit import daily_costs_match_charges
from tests.conftest import NOW, take_hold

DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def priced(prices):
    """All of it at the prices of the tests."""


@pytest.fixture
def tomorrow():
    """Noon of a day that nobody has sealed, the next in turn."""
    with transaction.atomic():
        newest = CostDay.objects.aggregate(newest=Max("day"))["newest"]
        return datetime.combine(newest + DAY, time(12), UTC)


def generate(customer, *, now, units="10", **dimensions):
    """Draws `units` image units, each for 0.002 USD."""
    job_id = uuid.uuid4()
    quantities = [Quantity(meter=Meter.IMAGE_UNIT, amount=Decimal(units))]
    prices = Prices.in_force(tenant=customer.tenant, now=now)
    take_hold(tenant=customer.tenant, amount_micros=prices.max_micros(quantities), reference=job_id, now=now)
    settle(
        project=customer.project, job_id=job_id, quantities=quantities, dimensions=dimensions, prices=prices, now=now
    )


def added_up(customer):
    """(charges, micros) of a tenant in the sums."""
    return DailyCost.objects.filter(tenant=customer.tenant).aggregate(n=Sum("charges"), micros=Sum("amount_micros"))


def test_a_day_that_is_sealed_has_a_row_for_charges_that_are_alike(alice, tomorrow):
    generate(alice, now=tomorrow, model="a")
    # Within one quarter of an hour: at the edges of a month the sums are by the quarter hour.
    generate(alice, now=tomorrow + timedelta(minutes=1), model="a")
    generate(alice, now=tomorrow, model="b")
    assert added_up(alice)["n"] is None
    assert cost_day_seal(day=tomorrow.date(), now=tomorrow + DAY)
    rows = DailyCost.objects.filter(tenant=alice.tenant).order_by("model")
    assert [(row.model, row.charges, row.quantity, row.amount_micros) for row in rows] == [
        ("a", 2, 20, 40_000),
        ("b", 1, 10, 20_000),
    ]
    assert not list(daily_costs_match_charges(NOW))


def test_sealing_again_adds_nothing(alice, tomorrow):
    generate(alice, now=tomorrow)
    cost_day_seal(day=tomorrow.date(), now=tomorrow + DAY)
    assert not cost_day_seal(day=tomorrow.date(), now=tomorrow + DAY)
    assert added_up(alice) == {"n": 1, "micros": 20_000}


def test_a_charge_of_a_sealed_day_adds_itself(alice):
    generate(alice, now=NOW)
    assert added_up(alice) == {"n": 1, "micros": 20_000}


def test_a_charge_that_commits_while_its_day_is_sealed_is_in_it(alice, tomorrow):
    generate(alice, now=tomorrow)

    def seal():
        try:
            return cost_day_seal(day=tomorrow.date(), now=tomorrow + DAY)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic():
            generate(alice, now=tomorrow)
            sealed = threads.submit(seal)
            with pytest.raises(TimeoutError):
                sealed.result(timeout=0.3)  # it waits for this charge
        assert sealed.result()
    assert added_up(alice) == {"n": 2, "micros": 40_000}


def test_charges_and_seals_of_many_threads_lose_nothing(customer, tomorrow):
    drawers = [customer() for _ in range(6)]
    start = threading.Barrier(7)

    def spend(one):
        start.wait()
        try:
            for number in range(8):
                generate(one, now=tomorrow + timedelta(minutes=number))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(6) as threads:
        spending = [threads.submit(spend, one) for one in drawers]
        start.wait()
        cost_day_seal(day=tomorrow.date(), now=tomorrow + DAY)
        for one in spending:
            one.result()
    assert [added_up(one)["n"] for one in drawers] == [8] * 6
    assert not list(daily_costs_match_charges(NOW))


def test_days_are_sealed_in_order_and_once_they_are_over(tomorrow):
    with pytest.raises(DatabaseError, match="in order"), transaction.atomic():
        cost_day_seal(day=tomorrow.date() + DAY, now=tomorrow + 3 * DAY)
    with pytest.raises(ValueError, match="not over"):
        cost_day_seal(day=tomorrow.date(), now=tomorrow)
    midnight = datetime.combine(tomorrow.date() + DAY, time(), UTC)
    assert cost_days_due(now=midnight + timedelta(minutes=59)) == []
    assert cost_days_due(now=midnight + timedelta(minutes=60)) == [tomorrow.date()]


def test_the_sums_are_append_only(alice):
    generate(alice, now=NOW)
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        DailyCost.objects.filter(tenant=alice.tenant).update(amount_micros=0)


def test_labels_are_those_of_the_time(alice):
    alice.project.labels = {"department": "design"}
    alice.project.save()
    generate(alice, now=NOW)
    alice.project.labels = {"department": "sales"}
    alice.project.save()
    generate(alice, now=NOW)
    record = UsageRecord.objects.filter(tenant=alice.tenant).first()
    correction_record(
        record=record, key=str(uuid.uuid4()), reason="r", author="a", quantity=record.quantity - 1, now=NOW
    )
    rows = DailyCost.objects.filter(tenant=alice.tenant).order_by("pk")
    assert [(row.labels, row.kind) for row in rows] == [
        ({"department": "design"}, "usage"),
        ({"department": "sales"}, "usage"),
        (record.dimensions["labels"], "correction"),
    ]


@pytest.mark.parametrize(
    ("now", "booked_at"),
    [
        (datetime(2026, 3, 17, 13, 31, tzinfo=UTC), datetime(2026, 3, 17, tzinfo=UTC)),
        (datetime(2026, 3, 31, 22, 31, tzinfo=UTC), datetime(2026, 3, 31, 22, 30, tzinfo=UTC)),
        (datetime(2026, 4, 1, 4, 14, 59, 999999, tzinfo=UTC), datetime(2026, 4, 1, 4, tzinfo=UTC)),
    ],
)
def test_where_a_month_may_end_in_some_zone_sums_are_of_quarter_hours(alice, now, booked_at):
    generate(alice, now=now)
    assert DailyCost.objects.get(tenant=alice.tenant).booked_at == booked_at


def test_audit_names_a_day_whose_sums_are_not_its_charges(alice):
    generate(alice, now=NOW)
    charge = Charge.objects.get(usage_record__tenant=alice.tenant)
    with transaction.atomic():
        with connections["default"].cursor() as cursor:
            cursor.execute("SET LOCAL session_replication_role = replica")  # as one who would go round the triggers
            cursor.execute("UPDATE billing_charge SET amount_micros = 1 WHERE id = %s", [charge.pk])
        found = list(daily_costs_match_charges(NOW))
        transaction.set_rollback(True)
    assert [line for line in found if line.startswith(f"the daily costs of {date(2026, 3, 1)}")]
