import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal

from django.db import connections

from easel.catalog.models import Pool, PoolOutage, Worker, WorkerDay
from easel.catalog.pools import pool_cost_set
from easel.catalog.workers import worker_seen
from tests.conftest import NOW, worker_beat

STARTED = NOW.timestamp()


def see(pool, *, after=0.0, **fields):
    report = worker_beat(**{"worker": "w2", "started_at": STARTED, **fields})
    worker_seen(pool=pool, report=report, now=NOW + timedelta(seconds=after))


def days(pool):
    rows = WorkerDay.objects.filter(pool=pool, worker="w2").order_by("day")
    return [(row.up_seconds, row.busy_seconds, row.load_seconds) for row in rows]


def test_a_day_has_the_time_since_the_start_and_what_was_done_in_it(pool):
    see(pool, after=20, load_seconds=15)
    see(pool, after=30, load_seconds=15, busy_seconds=4)
    assert days(pool) == [(30, 4, 15)]


def test_a_repeated_or_late_beat_adds_nothing(pool):
    see(pool, after=10, busy_seconds=3)
    see(pool, after=12, busy_seconds=5)
    see(pool, after=12, busy_seconds=5)
    see(pool, after=12, busy_seconds=3)
    see(pool, after=13, busy_seconds=6)
    assert days(pool) == [(13, 6, 0)]


def test_a_restarted_worker_begins_its_totals_anew_and_the_day_goes_on(pool):
    see(pool, after=10, busy_seconds=8)
    see(pool, after=15, started_at=STARTED + 12, busy_seconds=1)
    assert days(pool) == [(10 + 3, 9, 0)]
    assert Worker.objects.get(pool=pool, name="w2").busy_seconds == 1


def test_a_new_day_is_a_row_of_its_own_and_begins_at_midnight(pool):
    see(pool, after=3600, busy_seconds=100)
    see(pool, after=86_400, busy_seconds=150)
    assert days(pool) == [(43_200, 100, 0), (43_200, 50, 0)]


def test_the_time_up_is_exact_to_the_microsecond_however_many_beats_there_were(pool):
    for beats in range(1, 300):
        see(pool, after=beats * 0.1 + 0.000001)
    assert days(pool)[0][0] == 29.900001


def test_a_worker_whose_clock_is_ahead_was_up_for_no_time_yet(pool):
    see(pool, after=0, started_at=STARTED + 60)
    assert days(pool) == [(0, 0, 0)]


def test_a_beat_of_a_dead_process_is_ignored_after_its_successors(pool):
    see(pool, after=10, busy_seconds=8)
    see(pool, after=15, started_at=STARTED + 12, busy_seconds=1)
    see(pool, after=16, busy_seconds=9)
    see(pool, after=17, started_at=STARTED + 12, busy_seconds=2)
    assert days(pool) == [(10 + 3 + 2, 10, 0)]
    assert Worker.objects.get(pool=pool, name="w2").busy_seconds == 2


def test_two_consumers_may_record_a_new_workers_first_beat_at_once(pool):
    def first(_):
        try:
            see(pool, after=1, busy_seconds=0.5)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(first, range(4)))
    assert days(pool) == [(1, 0.5, 0)]


def test_days_before_a_change_of_a_pools_cost_do_not_change(pool):
    pool_cost_set(pool, gpu_hour_cost=Decimal("3.60"))
    see(pool, after=10)
    pool_cost_set(pool, gpu_hour_cost=Decimal("36"))
    see(pool, after=12)
    assert WorkerDay.objects.get(pool=pool, worker="w2").cost == Decimal("0.03")


def outages(pool):
    rows = PoolOutage.objects.filter(pool=pool).order_by("began_at").values_list("began_at", "ended_at")
    return [((began_at - NOW).total_seconds(), (ended_at - NOW).total_seconds()) for began_at, ended_at in rows]


def test_a_pool_without_a_worker_was_out_from_the_silence_of_the_last_to_the_next_beat(pool):
    see(pool, after=5)
    see(pool, after=12)  # within the silence that is allowed
    see(pool, after=60, worker="w3")
    see(pool, after=61, worker="w3")
    assert outages(pool) == [(22, 60)]


def test_a_worker_that_returns_while_another_is_live_ends_no_outage(pool):
    see(pool, after=5)
    see(pool, after=9, worker="w3")
    see(pool, after=18, worker="w3")
    see(pool, after=27)
    assert outages(pool) == []


def test_a_new_pool_is_out_until_its_first_worker():
    made = Pool.objects.create(
        slug=f"p-{uuid.uuid4().hex[:8]}", namespace=uuid.uuid4().hex, gpu_class="cpu", created_at=NOW
    )
    see(made, after=90, started_at=STARTED + 60)
    assert outages(made) == [(0, 90)]
