from datetime import timedelta
from decimal import Decimal

import pytest

from billing.ledger.accounts import balances_by_kind
from billing.models import Meter
from billing.pricing.rating import Quantity
from billing.usage.metering import usage_meter
from core import clock
from tenants.accounts import project_create
from tests.conftest import NOW
from tests.easel.api.conftest import call, end_job

pytestmark = pytest.mark.usefixtures("one_day")


@pytest.fixture
def used(alice, create):
    """Alice's usage: two requests in one project, one in another."""
    project_create(tenant=alice.tenant, slug="campaign", now=NOW)
    for project, gpu_seconds in (("default", 1.0), ("default", 2.0), ("campaign", 4.0)):
        end_job(create(alice, project=project)["id"], gpu_seconds=gpu_seconds)
    return alice


def usage(customer, query=""):
    return call("GET", f"/v1/usage?{query}", customer).json()


def test_usage_is_grouped_by_project_unless_asked_otherwise(used):
    rows = {row["project"]: row for row in usage(used)["data"]}
    assert (rows["default"]["requests"], rows["default"]["gpu_seconds"]) == (2, 3.0)
    assert (rows["campaign"]["requests"], rows["campaign"]["image_units"]) == (1, 0.25)
    assert rows["campaign"]["cost"]["amount_micros"] == 500 + 500 + 400


@pytest.mark.parametrize(
    "group_by", ["project", "model", "adapter", "day", "model,day", "project,model,adapter,tier,day"]
)
def test_every_grouping_adds_up_to_what_the_ledger_earned(used, group_by):
    found = usage(used, f"group_by={group_by}")
    assert set(found["data"][0]) - {"requests", "image_units", "gpu_seconds", "storage_gb_seconds", "cost"} == set(
        group_by.split(",")
    )
    assert sum(row["cost"]["amount_micros"] for row in found["data"]) == found["total"]["amount_micros"]
    assert found["total"]["amount_micros"] == balances_by_kind(used.tenant)["revenue"]


def test_days_are_included_at_both_ends(used, one_day):
    yesterday = one_day - timedelta(days=1)
    assert usage(used, f"start={one_day}&end={one_day}")["total"]["amount_micros"] > 0
    assert usage(used, f"start={yesterday}&end={yesterday}")["data"] == []


@pytest.mark.parametrize("query", ["start=0001-01-01", "start=0001-01-01&end=9999-12-31"])
def test_a_range_may_reach_as_far_as_dates_do(used, query):
    assert usage(used, query)["total"]["amount_micros"] == balances_by_kind(used.tenant)["revenue"]


def test_another_tenants_usage_is_not_seen(used, bob):
    assert usage(bob)["data"] == []
    assert usage(bob)["total"] == {"amount": "0.000000", "amount_micros": 0, "currency": "USD"}


@pytest.mark.parametrize(
    ("query", "param"),
    [("group_by=key", "group_by"), ("group_by=", "group_by"), ("start=x", "start"), ("until=2026-01-01", "until"),
     ("start=2026-02-02&end=2026-02-01", "end")],
)  # fmt: skip
def test_a_bad_query_is_named(alice, query, param):
    answer = call("GET", f"/v1/usage?{query}", alice)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_what_nobody_prices_is_shown_as_used(used):
    usage_meter(
        project=used.project,
        quantity=Quantity(meter=Meter.POOL_SECOND, amount=Decimal("1.5")),
        dimensions={"model": "unpriced"},
        source="test",
        key=f"unpriced/{used.project.pk}",
        occurred_at=clock.now(),
        description="",
        now=clock.now(),
    )
    rows = {row["model"]: row for row in usage(used, "group_by=model")["data"]}
    assert rows["unpriced"]["cost"]["amount_micros"] == 0
    assert sum(row["cost"]["amount_micros"] for row in rows.values()) == balances_by_kind(used.tenant)["revenue"]
