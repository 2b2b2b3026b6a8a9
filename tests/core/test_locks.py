"""Locks by name, which a role without rights on their rows can't take."""

import subprocess
import threading
from pathlib import Path

import pytest
from django.db import connection, transaction

from core import locks
from core.models import Lock
from core.pipeline import run_query
from core.schema import schema_migrate

ROOT = Path(__file__).resolve().parents[2]


def _queried(name):
    run_query(locks.lock_query(name))


@pytest.mark.parametrize("take", [locks.lock_take, locks.lock_take_passing, _queried])
def test_of_two_transactions_that_take_a_lock_one_waits_for_the_end_of_the_other(take):
    """Also where its row is not there yet."""
    order, waits = [], threading.Event()

    def second():
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                order.append(cursor.fetchone()[0])
            waits.set()
            take("a test")
            order.append("second")
        connection.close()

    other = threading.Thread(target=second)
    with transaction.atomic():
        take("a test")
        take("another test")
        other.start()
        waits.wait()
        with connection.cursor() as cursor:
            blocked = False
            while not blocked and other.is_alive():
                cursor.execute("SELECT cardinality(pg_blocking_pids(%s)) > 0", [order[0]])
                ((blocked,),) = cursor.fetchall()
        order.append("first")
    other.join()
    assert order[1:] == ["first", "second"]
    assert Lock.objects.filter(name="a test").exists() == (take is not locks.lock_take_passing)
    Lock.objects.filter(name__endswith=" test").delete()


def test_nothing_of_easel_waits_for_an_advisory_lock():
    """Any role that can log in may take every one of them."""
    paths = ["*.py", "*.sql", ":!tests", ":!**/reporting/**"]
    searched = ["git", "grep", "-lE", "pg_(try_)?advisory_(xact_)?lock", "--", *paths]
    assert subprocess.run(searched, cwd=ROOT, capture_output=True, text=True, check=False).stdout == ""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT proname FROM pg_proc WHERE prosrc ~ '_advisory_' AND pronamespace = 'public'::regnamespace"
        )
        assert cursor.fetchall() == []


def test_processes_that_migrate_take_turns():
    order, began = [], threading.Event()

    def migrate():
        began.set()
        schema_migrate(provider_name="Easel")
        order.append("second")
        connection.close()

    other = threading.Thread(target=migrate)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE django_migrations IN SHARE UPDATE EXCLUSIVE MODE")
        other.start()
        began.wait()
        waits = False
        while not waits and other.is_alive():
            cursor.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid)))")
            ((waits,),) = cursor.fetchall()
        order.append("first")
    other.join()
    assert order == ["first", "second"]
