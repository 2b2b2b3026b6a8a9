"""The loop of every daemon: turn, wait, outlast a failure, stop."""

import threading
import time

import pytest
from django.db import InterfaceError, OperationalError, connection
from redis.exceptions import RedisError
from structlog.testing import capture_logs

import core.notifications
from easel.processes import loop
from easel.processes.loop import Pulse, run_turns


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr(loop, "RETRY_SECONDS", 0.01)


def run_until(turns, answer, *, pause_seconds=0.01, **options):
    """Run a loop whose turn calls `answer` with its number, until there were `turns`; return the seconds it took."""
    stop, calls = threading.Event(), []

    def turn():
        calls.append(None)
        if len(calls) == turns:
            stop.set()
        return answer(len(calls)) or stop.is_set()  # no pause after the last turn

    began = time.monotonic()
    run_turns(turn, process="test", stop=stop, pause_seconds=pause_seconds, **options)
    assert len(calls) == turns
    return time.monotonic() - began


def test_a_turn_that_may_have_left_work_is_followed_by_the_next_at_once():
    assert run_until(3, lambda _: True, pause_seconds=60) < 30


def test_a_loop_that_is_to_stop_does_not_finish_its_pause():
    stop = threading.Event()
    running = threading.Thread(
        target=run_turns, args=(lambda: False,), kwargs={"process": "t", "stop": stop, "pause_seconds": 60}
    )
    running.start()
    stop.set()
    running.join(30)
    assert not running.is_alive()


def test_a_turn_without_work_is_followed_by_a_pause():
    assert run_until(3, lambda _: False, pause_seconds=0.1) >= 0.19


def test_a_notification_ends_the_pause():
    def answer(number):
        if number == 1:
            threading.Timer(0.2, notify).start()
        return False

    assert run_until(2, answer, pause_seconds=20, channels=("easel_test",)) < 15


def notify():
    try:
        connection.cursor().execute("NOTIFY easel_test")
    finally:
        connection.close()


def test_notifications_without_work_rarely_wake_a_loop_and_a_flood_does_not(monkeypatch):
    """Anybody who can log in may send them."""
    monkeypatch.setattr(loop, "REST_SECONDS", 0.05)
    monkeypatch.setattr(core.notifications, "BYTES_PER_SECOND_MAX", 100_000)
    notices, over = 0, threading.Event()

    def attack():
        nonlocal notices
        with connection.cursor() as cursor:
            while not over.is_set():
                cursor.execute("SELECT pg_notify('easel_test', n::text) FROM generate_series(1, 100) n")
                notices += 1
        connection.close()

    attacker = threading.Thread(target=attack)
    attacker.start()
    try:
        with capture_logs() as logs:
            seconds = run_until(20, lambda _: False, pause_seconds=0.1, channels=("easel_test",))
    finally:
        over.set()
        attacker.join()
    assert seconds >= (20 - loop.IDLE_WAKEUPS_MAX - 2) * 0.05
    assert "notifications_flooded" in {line["event"] for line in logs}
    assert notices > 20


def test_a_lost_notification_is_made_up_for_by_the_pause():
    assert run_until(2, lambda _: False, pause_seconds=0.1, channels=("easel_test",)) < 30


@pytest.mark.parametrize(
    "error", [OperationalError("away"), InterfaceError("closed"), RedisError("away"), ZeroDivisionError("a bug")]
)
def test_a_turn_that_fails_is_tried_again(error):
    failed = []

    def answer(number):
        if number <= 2:
            failed.append(number)
            raise error
        return True

    run_until(4, answer)
    assert failed == [1, 2]


def test_a_loop_waits_until_a_server_is_back(monkeypatch, settings_of):
    from django.conf import settings

    url = settings.EASEL.database_url
    settings_of(database_url="postgresql://127.0.0.1:1/nobody")
    back = threading.Timer(0.3, lambda: settings_of(database_url=url))
    back.start()
    assert run_until(1, lambda _: True, channels=("easel_test",)) >= 0.25


def test_a_loop_that_turns_touches_the_file_and_one_that_hangs_does_not(tmp_path):
    stop, turned, go_on = Pulse(tmp_path / "alive"), threading.Event(), threading.Event()

    def turn():
        turned.set()
        go_on.wait()

    thread = threading.Thread(target=run_turns, args=(turn,), kwargs={"process": "t", "stop": stop, "pause_seconds": 0})
    thread.start()
    turned.wait()
    stop.set()
    (tmp_path / "alive").unlink()  # and while the loop hangs nobody makes it again
    assert not (tmp_path / "alive").exists()
    go_on.set()
    thread.join()
    assert (tmp_path / "alive").exists()
