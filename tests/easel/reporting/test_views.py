"""The reporting views of jobs, charges, storage and pools."""

from datetime import date, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection

from billing.ledger.accounts import balances_by_kind
from billing.models import Meter, StoredObject
from billing.pricing.rating import Quantity
from billing.usage.metering import usage_meter
from billing.usage.storage import gb_seconds, objects_deleted, objects_stored, storage_day_meter
from easel.catalog.models import WorkerDay
from easel.jobs import dispatch, lifecycle
from inference.contract import AttemptFinished, StoredOutput
from tests.conftest import NOW
from tests.easel.reporting.conftest import VIEWS

TODAY = NOW.date()


def select(view, **where):
    """The rows of a view, as dictionaries."""
    condition = " AND ".join(f"{name} = %s" for name in where)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM reporting.{view} WHERE {condition}", list(where.values()))
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


@pytest.fixture
def generate(pool, submit):
    """Runs a job to its end, charge included: `generate(alice, gpu_seconds=1.5)`."""

    def make(customer, *, gpu_seconds=1.5, outcome="succeeded", **spec):
        job = submit(customer, **spec)
        (attempt,) = dispatch.release(pool=pool, now=NOW + timedelta(seconds=2), lease_seconds=15)
        outputs = (StoredOutput(index=0, seed=1, sha256="0" * 64, size_bytes=10),) if outcome == "succeeded" else ()
        report = AttemptFinished(
            attempt_token=str(attempt.token),
            worker="w1",
            gpu_class="cpu",
            outcome=outcome,
            error_code="" if outcome == "succeeded" else "out_of_memory",
            gpu_seconds=gpu_seconds,
            outputs=outputs,
        )
        lifecycle.finish(pool=pool, report=report, now=NOW + timedelta(seconds=5), attempts_max=1)
        return job

    return make


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_and_each_of_its_columns_are_described(view):
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT attname, col_description(attrelid, attnum), obj_description(attrelid) FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0",
            [f"reporting.{view}"],
        )
        found = cursor.fetchall()
    assert found
    assert not [column for column, comment, of_view in found if not comment or not of_view]


def test_there_are_no_other_views():
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relnamespace = 'reporting'::regnamespace")
        assert {name for (name,) in cursor.fetchall()} == set(VIEWS)


def test_a_prompt_is_in_no_view(alice, generate):
    generate(alice, prompt="a secret of alice")
    for view in VIEWS:
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM reporting.{view} AS seen WHERE seen::text LIKE '%%secret of alice%%'")
            assert cursor.fetchone() == (0,)


def test_charges_add_up_to_what_the_ledger_earned(alice, generate):
    generate(alice)
    generate(alice, gpu_seconds=1000.0)  # more than was held: the rest is waived
    found = select("charges", tenant=alice.tenant.slug)
    assert sum(row["amount_micros"] for row in found) == balances_by_kind(alice.tenant)["revenue"]


def test_a_quantity_counts_once_where_a_cap_is_charged_too(alice, generate):
    generate(alice, gpu_seconds=1000.0)
    found = [row for row in select("charges", tenant=alice.tenant.slug) if row["meter"] == "gpu_second"]
    assert sorted((row["kind"], row["quantity"]) for row in found) == [("usage", 1000), ("waiver", 0)]


def test_a_charge_says_who_used_what(alice, generate, pool, version):
    alice.project.labels = {"department": "design", "floor": "3"}
    alice.project.save()
    job = generate(alice)
    [row] = [row for row in select("charges", tenant=alice.tenant.slug) if row["meter"] == "image_unit"]
    assert (row["job_id"], row["project"], row["department"]) == (job.id, "default", "design")
    assert (row["model"], row["model_version"], row["pool"]) == (version.model.name, version.label, pool.slug)
    assert (row["resolution"], row["api_key"], row["adapter"]) == ("256x256", alice.key.key_id, "")
    assert (row["day"], row["currency"], row["is_history"]) == (TODAY, "USD", False)


def test_charges_of_a_made_up_history_are_marked(alice, generate):
    alice.project.labels = {"history": "generated"}
    alice.project.save()
    generate(alice)
    assert {row["is_history"] for row in select("charges", tenant=alice.tenant.slug)} == {True}


def test_a_job_shows_how_long_it_waited_and_ran_and_what_it_cost(alice, generate, version):
    job = generate(alice)
    [row] = select("jobs", job_id=job.id)
    assert (row["state"], row["attempts"], row["gpu_seconds"]) == ("succeeded", 1, Decimal("1.5"))
    assert (row["queue_seconds"], row["run_seconds"]) == (5, 0)  # its start was reported with its end
    assert (row["amount_micros"], row["currency"]) == (1150, "USD")
    assert (row["model_version"], row["experiment"], row["arm"]) == (version.label, "", "")


def test_a_job_that_failed_cost_nothing_but_gpu_time(alice, generate):
    [row] = select("jobs", job_id=generate(alice, outcome="failed").id)
    assert (row["state"], row["error_code"], row["amount_micros"]) == ("failed", "out_of_memory", 0)
    assert row["gpu_seconds"] == Decimal("1.5")


def test_a_job_that_waits_has_no_times_yet(alice, submit):
    [row] = select("jobs", job_id=submit(alice).id)
    assert (row["attempts"], row["queue_seconds"], row["run_seconds"], row["finished_at"]) == (0, None, None, None)


@pytest.fixture
def store_file(alice):
    """Stores a file of alice for some time: `store_file("a", 10**9, hours=36)`."""

    def make(key, size_bytes, *, since=NOW, hours=None):
        key = f"{alice.tenant.slug}/{key}"
        objects_stored(project=alice.project, kind=StoredObject.Kind.OUTPUT, sizes={key: size_bytes}, now=since)
        if hours is not None:
            objects_deleted(storage_keys=[key], now=since + timedelta(hours=hours))

    return make


def days_of(customer):
    return {row["day"]: row for row in select("storage", tenant=customer.tenant.slug)}


def test_a_file_counts_for_the_part_of_each_day_that_it_was_there(alice, store_file):
    store_file("a", 10**9, hours=48)  # from noon to noon
    found = days_of(alice)
    half = Decimal("0.5")
    assert [found[TODAY + timedelta(days=n)]["gb_days"] for n in range(4)] == [half, 1, half, 0]
    assert [found[TODAY + timedelta(days=n)]["bytes"] for n in range(4)] == [10**9, 10**9, 0, 0]


def test_gb_days_are_what_storage_is_charged_by(alice, store_file, prices):
    store_file("a", 123_456_789, since=NOW - timedelta(hours=1, microseconds=7), hours=5)
    store_file("b", 987_654_321, since=NOW, hours=40)
    store_file("c", 7, since=NOW + timedelta(hours=3))
    found = days_of(alice)
    for number in range(3):
        start = datetime.combine(TODAY + timedelta(days=number), datetime.min.time(), NOW.tzinfo)
        objects = StoredObject.objects.filter(project=alice.project)
        charged = gb_seconds(objects, start=start, end=start + timedelta(days=1))
        assert found[start.date()]["gb_days"] * 86400 == pytest.approx(charged, abs=Decimal("1e-12"))


def test_the_row_of_today_has_what_is_stored_now(alice, store_file):
    store_file("a", 300, hours=1)
    store_file("b", 20)
    store_file("c", 1)
    [today] = [row for row in days_of(alice).values() if row["is_today"]]
    assert (today["bytes"], today["objects"], today["kind"]) == (21, 2, "output")


def test_a_charge_of_storage_is_of_the_day_of_storage(alice, store_file, prices):
    store_file("a", 10**12, hours=2)
    storage_day_meter(day=TODAY, now=NOW + timedelta(days=2))
    [row] = select("charges", tenant=alice.tenant.slug)
    assert (row["day"], row["meter"], row["storage_kind"]) == (TODAY, "storage_gb_second", "output")
    assert (row["job_id"], row["pool"], row["model"], row["quantity"]) == (None, "", "", 7_200_000)


def test_a_pools_day_shows_price_against_gpu_cost(alice, generate, pool):
    WorkerDay.objects.filter(pool=pool).delete()
    for worker in ("w1", "w2"):
        WorkerDay.objects.create(
            pool=pool,
            worker=worker,
            day=TODAY,
            gpu_class="cpu",
            up_seconds=1000,
            busy_seconds=100,
            attributed_seconds=100,
            load_seconds=50,
            cost=1,
        )
    generate(alice)
    [row] = select("pool_days", pool=pool.slug)
    assert (row["day"], row["workers"], row["up_seconds"], row["idle_seconds"]) == (TODAY, 2, 2000, 1700)
    assert (row["billed_gpu_seconds"], row["foreign_gpu_seconds"]) == (Decimal("1.5"), 0)
    # 1.5 GPU seconds at 0.0001, and a quarter of an image unit and a request with it
    assert (row["cost_micros"], row["revenue_micros"], row["job_revenue_micros"]) == (2_000_000, 150, 1150)


def test_a_day_of_idle_workers_costs_without_revenue(pool):
    WorkerDay.objects.create(pool=pool, worker="w9", day=date(2026, 2, 1), gpu_class="cpu", up_seconds=3600, cost=2)
    [row] = select("pool_days", pool=pool.slug, day=date(2026, 2, 1))
    assert (row["cost_micros"], row["job_revenue_micros"], row["idle_seconds"]) == (2_000_000, 0, 3600)


def test_balances_show_what_is_left_held_and_charged(alice, generate, submit):
    generate(alice)
    submit(alice)
    [row] = select("balances", tenant=alice.tenant.slug)
    held = balances_by_kind(alice.tenant)["held"]
    assert (row["credit_micros"], row["held_micros"]) == (10_000_000 - 1150 - held, held)
    assert (row["charged_micros"], row["owed_micros"], row["currency"]) == (1150, 0, "USD")


def test_costs_are_the_same_before_and_after_their_day_is_sealed(alice, generate):
    generate(alice)  # of a day that was sealed before
    before = select("costs", tenant=alice.tenant.slug)
    charges = select("charges", tenant=alice.tenant.slug)
    for name in ("day", "project", "model", "resolution", "meter", "quantity", "amount_micros", "pool", "api_key"):
        assert sorted(str(row[name]) for row in before) == sorted(str(row[name]) for row in charges)


def test_a_reorganisation_leaves_the_past_as_it_was(alice, generate):
    alice.project.labels = {"department": "design"}
    alice.project.save()
    generate(alice)
    alice.project.labels = {"department": "sales"}
    alice.project.save()
    for view in ("costs", "charges"):
        assert {row["department"] for row in select(view, tenant=alice.tenant.slug)} == {"design"}


def test_use_without_a_price_is_reported(alice):
    usage_meter(
        project=alice.project,
        quantity=Quantity(meter=Meter.POOL_SECOND, amount=Decimal("1.5")),
        dimensions={},
        source="test",
        key=f"unpriced/{alice.project.pk}",
        occurred_at=NOW,
        description="",
        now=NOW,
    )
    [row] = select("unpriced", tenant=alice.tenant.slug)
    assert (row["day"], row["meter"], row["quantity"], row["project"]) == (
        TODAY,
        "pool_second",
        Decimal("1.5"),
        "default",
    )
    assert select("costs", tenant=alice.tenant.slug) == []
