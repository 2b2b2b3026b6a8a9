"""The front page says what the reports say."""

import json
from datetime import timedelta

import pytest

from billing.ledger.accounts import balances_by_kind
from easel.catalog.models import WorkerDay
from easel.portal.overview import overview
from tests.conftest import NOW


def series(found, title):
    [chart] = [chart for chart in found.charts if chart.title.startswith(title)]
    return {one["label"]: one["data"] for one in json.loads(chart.data)["datasets"]} if chart.data else {}


@pytest.fixture
def shown():
    """The week until three days after NOW, of which nobody but this test knows."""
    return lambda: overview(days=7, now=NOW + timedelta(days=3))


def test_jobs_gpus_and_revenue_are_those_of_the_days(alice, submit, end, pool, shown):
    before = shown()
    for outcome in ("succeeded", "succeeded", "failed"):
        end(submit(alice), seconds=4.0, outcome=outcome)
    submit(alice)  # goes on, so no day has it
    WorkerDay.objects.create(
        pool=pool, worker="overview", day=NOW.date(), gpu_class="cpu", up_seconds=7200, busy_seconds=3600, cost=2
    )
    after = shown()

    def grown(title, name):
        old = series(before, title).get(name, [0] * 7)
        return [now - then for now, then in zip(series(after, title)[name], old, strict=True)]

    assert grown("Requests", "succeeded or canceled") == [0, 0, 0, 2, 0, 0, 0]
    assert grown("Requests", "failed or expired") == [0, 0, 0, 1, 0, 0, 0]
    assert grown("GPU hours", "busy") == pytest.approx([0, 0, 0, 1, 0, 0, 0])
    assert grown("Revenue", "cost") == pytest.approx([0, 0, 0, 2, 0, 0, 0])
    charged = balances_by_kind(alice.tenant)["revenue"]
    assert charged > 0
    assert grown("Revenue", "revenue") == pytest.approx([0, 0, 0, charged / 1e6, 0, 0, 0], abs=2e-6)
