"""A hostile worker of a dedicated pool, whose tenant pays for the time that its workers are up."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from easel.catalog import workers
from easel.catalog.models import Pool, Worker, WorkerDay
from easel.catalog.workers import TooManyWorkers, worker_seen
from tests.conftest import NOW, worker_beat

BEGAN = NOW.timestamp()
ONE_BEAT = 10 + 15  # seconds for which one beat gets a worker jobs, and then leases


@pytest.fixture
def pool(alice):
    """Alice's own pool, which was made a day ago."""
    slug = alice.tenant.slug
    made_at = NOW - timedelta(days=1)
    return Pool.objects.create(
        slug=slug,
        namespace=f"easel-t-{slug}",
        tenant=alice.tenant,
        checkpoint="c",
        gpu_class="h200",
        created_at=made_at,
    )


def see(pool, *, after, **fields):
    given = {"started_at": BEGAN, "worker": "w1", **fields}
    worker_seen(pool=pool, report=worker_beat(**given), now=NOW + timedelta(seconds=after))


def up_seconds(pool):
    return sum(WorkerDay.objects.filter(pool=pool).values_list("up_seconds", flat=True))


def test_its_gpu_class_is_the_pools(pool):
    see(pool, after=30, gpu_class="cpu")
    assert Worker.objects.get(pool=pool).gpu_class == "h200"
    assert WorkerDay.objects.get(pool=pool).gpu_class == "h200"


@pytest.mark.parametrize("started_at", [0.0, 1.0, BEGAN - 10 * 86_400, BEGAN + 20, 4e9])
def test_whatever_start_it_names_its_first_beat_counts_between_one_beats_use_and_an_hour(pool, started_at):
    see(pool, after=30, started_at=started_at)
    assert up_seconds(pool) == (ONE_BEAT if started_at > BEGAN else 3600)
    see(pool, after=31, started_at=started_at)
    assert up_seconds(pool) == (ONE_BEAT if started_at > BEGAN else 3600) + 1


def test_it_was_up_in_no_time_before_its_pool_was_there(pool):
    Pool.objects.filter(pk=pool.pk).update(created_at=NOW)
    pool.refresh_from_db()
    see(pool, after=10, started_at=BEGAN - 500)
    assert up_seconds(pool) == 10


@pytest.mark.parametrize(
    "life",
    [
        lambda second: {"started_at": BEGAN + second},  # restarted at every beat
        lambda second: {"worker": f"w{second}", "started_at": BEGAN + second},  # a new name at every beat
        lambda second: {"started_at": BEGAN - second},  # older at every beat
        lambda second: {"started_at": BEGAN + 10**6 - second},
        lambda second: {"started_at": BEGAN + 86_400 + second},
        lambda second: {"started_at": BEGAN if second % 2 else BEGAN + second},
    ],
)
@pytest.mark.parametrize("pause", [9, 24])
def test_neither_restarts_nor_names_make_it_cheaper_than_the_time_in_which_it_is_given_work(pool, life, pause):
    beats = range(100, 100 + 6 * pause, pause)
    for second in beats:
        see(pool, after=second, **life(second))
    assert up_seconds(pool) >= beats[-1] - beats[0]


def test_a_day_has_no_more_seconds_than_have_passed_of_it(pool):
    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    begin = (midnight - NOW).total_seconds()
    for second in (1, 2, 3):
        Worker.objects.filter(pool=pool).delete()  # as if its name had had to make room
        see(pool, after=begin + second, started_at=0.0)
    days = dict(WorkerDay.objects.filter(pool=pool).values_list("day", "up_seconds"))
    assert days == {NOW.date(): 3600 - 1 + 3598 + 3597, midnight.date(): 3}
    for _ in range(13):
        Worker.objects.filter(pool=pool).delete()
        see(pool, after=begin + 3, started_at=0.0)
    assert WorkerDay.objects.get(pool=pool, day=NOW.date()).up_seconds <= 86_400
    assert WorkerDay.objects.get(pool=pool, day=midnight.date()).up_seconds == 3


@pytest.mark.parametrize("seed", range(3))
def test_its_device_was_never_busy_for_longer_than_it_was_up(pool, seed):
    chance, second, process = random.Random(seed), 60, BEGAN
    for _ in range(25):
        second += chance.choice([0, 1, 1, 7, 40, 3600])
        process = chance.choice([process, process, BEGAN + second, BEGAN - 50, 0.0])
        sent = {
            name: chance.choice([0.0, 1e-9, second / 2, float(second), 1e9])
            for name in ("busy_seconds", "attributed_seconds", "load_seconds")
        }
        see(pool, after=second, started_at=process, **sent)
        day = WorkerDay.objects.get(pool=pool, day=NOW.date())
        assert min(day.load_seconds, day.busy_seconds, day.attributed_seconds) >= 0
        assert day.busy_seconds + day.load_seconds <= day.up_seconds + 1e-6
        assert day.attributed_seconds + day.load_seconds <= day.up_seconds + 1e-6
        assert day.up_seconds <= second + 3600


def test_what_an_honest_worker_did_is_recorded_also_when_its_beats_come_all_at_once(pool):
    see(pool, after=30, load_seconds=25)
    for second in range(31, 41):
        see(pool, after=40, load_seconds=25, busy_seconds=second - 30.5, attributed_seconds=second - 30.5)
    day = WorkerDay.objects.get(pool=pool)
    assert (day.up_seconds, day.load_seconds, day.busy_seconds, day.attributed_seconds) == (40, 25, 9.5, 9.5)


def test_a_pool_has_so_many_live_workers_and_no_more_rows(pool, monkeypatch):
    monkeypatch.setattr(workers, "NAMES_MAX", 3)
    for number in range(3):
        see(pool, after=number, worker=f"w{number}")
    before = list(Worker.objects.filter(pool=pool).values())
    with pytest.raises(TooManyWorkers):
        see(pool, after=3, worker="w3")
    assert list(Worker.objects.filter(pool=pool).values()) == before
    see(pool, after=11, worker="w3")  # w0 has been silent for longer than is allowed
    assert set(Worker.objects.filter(pool=pool).values_list("name", flat=True)) == {"w1", "w2", "w3"}


def test_a_pool_has_so_many_names_on_a_day(pool, monkeypatch):
    monkeypatch.setattr(workers, "NAMES_OF_A_DAY_MAX", 3)
    for number in range(3):
        see(pool, after=20 * number, worker=f"w{number}")
    with pytest.raises(TooManyWorkers):
        see(pool, after=60, worker="w3")
    see(pool, after=61, worker="w1")
    see(pool, after=86_400, worker="w3")
