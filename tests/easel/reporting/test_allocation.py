"""Allocation of pool costs to projects, by each policy: every cost is allocated exactly once."""

import uuid
from decimal import Decimal

import pytest

from easel.catalog.models import Pool, WorkerDay
from tenants.accounts import project_create
from tests.conftest import NOW
from tests.easel.reporting.conftest import generate, select

TODAY = NOW.date()
COST = 3_600_000  # a day of 3,600 seconds at 3.60 USD an hour: 1,000 micros a second


@pytest.fixture
def slug(prices):
    """A pool that was up for an hour."""
    slug = f"pool-{uuid.uuid4().hex[:12]}"
    pool = Pool.objects.create(slug=slug, namespace=f"easel-{slug}", gpu_class="h100", created_at=NOW)
    WorkerDay.objects.create(
        pool=pool, worker="w", day=TODAY, gpu_class="h100", up_seconds=3600, busy_seconds=400, cost=Decimal("3.6")
    )
    return slug


def shares(slug, policy):
    rows = select("cost_allocation", pool=slug, policy=policy)
    assert round(sum(row["direct_micros"] + row["shared_micros"] for row in rows)) == COST
    return {row["project"]: (round(row["direct_micros"]), round(row["shared_micros"])) for row in rows}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("proportional", {"a": (300_000, 2_400_000), "b": (100_000, 800_000)}),
        ("even", {"a": (300_000, 1_600_000), "b": (100_000, 1_600_000)}),
        ("none", {"a": (300_000, 0), "b": (100_000, 0), "": (0, 3_200_000)}),
    ],
)
def test_the_rest_of_a_day_is_shared_by_the_policy(alice, slug, policy, expected):
    for name, seconds in (("a", "300"), ("b", "100")):
        project = project_create(tenant=alice.tenant, slug=name, labels={"department": name}, now=NOW)
        generate(alice, now=NOW, gpu_seconds=seconds, project=project, pool=slug)
    assert shares(slug, policy) == expected


@pytest.mark.parametrize("policy", ["proportional", "even", "none"])
def test_a_day_without_jobs_is_allocated_to_no_project(slug, policy):
    assert shares(slug, policy) == {"": (0, COST)}


@pytest.mark.parametrize("policy", ["proportional", "even", "none"])
def test_a_day_with_more_gpu_seconds_than_up_time_allocates_its_cost(alice, slug, policy):
    generate(alice, now=NOW, gpu_seconds="4000", pool=slug)  # most of them before midnight
    assert shares(slug, policy)["default"] == (COST, 0)


def test_charges_stand_beside_costs(alice, slug):
    generate(alice, now=NOW, gpu_seconds="300", pool=slug)
    [row] = select("cost_allocation", pool=slug, policy="even")
    assert row["charged_micros"] == sum(one["amount_micros"] for one in select("costs", tenant=alice.tenant.slug))
    assert row["gpu_seconds"] == 300
