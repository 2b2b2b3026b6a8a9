"""The login of Grafana in the wrong hands: it may only read, and PostgreSQL lets every role do much more."""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from easel_client import Easel
from easel_local.postgres import Postgres
from tests.attacks.conftest import ORDER
from tests.live import LiveEasel

LIMITS_LIFTED = "-c statement_timeout=0 -c idle_in_transaction_session_timeout=0 -c default_transaction_read_only=off"
CHANNELS = ("easel_queued", "easel_finished", "easel_progress", "easel_webhooks")


@pytest.fixture
def login(easel: LiveEasel) -> str:
    """The address of the database with a login of the real command, which lifts its own limits."""
    made = easel.json("reporting-login", f"grafana_{uuid.uuid4().hex[:8]}")
    url = Postgres(easel.home).url
    return make_conninfo(url, user=made["user"], password=made["password"], options=LIMITS_LIFTED)


@pytest.fixture
def attack(login: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(login, autocommit=True) as connection:
        yield connection


def refused(connection: psycopg.Connection, statement: str) -> bool:
    try:
        with connection.transaction():
            connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege:
        return True
    return False


def test_a_login_that_reads_takes_no_lock_of_the_platform(attack: psycopg.Connection, tenant: Easel) -> None:
    locks = [
        "SELECT pg_advisory_lock(hashtext('easel dispatch'), 1)",
        "SELECT pg_advisory_lock(hashtext('easel schema'))",
        "SELECT pg_try_advisory_lock_shared(n) FROM generate_series(1, 1000000) n",
        "SELECT name FROM core_lock FOR UPDATE",
        "LOCK TABLE django_migrations IN SHARE UPDATE EXCLUSIVE MODE",
        "LOCK TABLE billing_daylock_0 IN ACCESS SHARE MODE",
        "LOCK TABLE reporting.jobs IN ACCESS EXCLUSIVE MODE",
    ]
    assert [statement for statement in locks if not refused(attack, statement)] == []
    assert tenant.images.generations(**ORDER)["data"]


def test_a_login_that_reads_stops_nobody_with_notifications(login: str, tenant: Easel) -> None:
    """Junk to every channel from three connections without a pause, while a client waits for its image."""
    over, sent = threading.Event(), []

    def flood(payload: str) -> None:
        try:
            with psycopg.connect(login, autocommit=True) as connection:
                while not over.is_set():
                    for channel in CHANNELS:
                        connection.execute(
                            "SELECT pg_notify(%s, %s || n) FROM generate_series(1, 200) n", [channel, payload]
                        )
                        sent.append(channel)
        except psycopg.OperationalError:  # the platform has ended the session
            pass

    floods = [threading.Thread(target=flood, args=[text]) for text in ("", "x" * 7000, str(uuid.uuid4()))]
    for one in floods:
        one.start()
    try:
        assert tenant.images.generations(**ORDER)["data"]
    finally:
        over.set()
        for one in floods:
            one.join()
    assert len(sent) > len(CHANNELS)
    assert tenant.images.generations(**ORDER)["data"]


def test_a_login_that_reads_fills_neither_the_disk_nor_the_server(login: str, tenant: Easel) -> None:
    writes = [
        "CREATE TEMPORARY TABLE mine (id int)",
        "CREATE TABLE public.mine (id int)",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000))",
        "SET temp_file_limit = -1",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
    ]
    with ExitStack() as opened:
        sessions = [opened.enter_context(psycopg.connect(login, autocommit=True)) for _ in range(10)]
        assert [statement for statement in writes if not refused(sessions[0], statement)] == []
        with pytest.raises(psycopg.OperationalError, match="too many connections"):
            psycopg.connect(login)
        for session in sessions:
            session.execute("BEGIN")
            session.execute("SELECT count(*) FROM reporting.jobs")
        assert tenant.images.generations(**ORDER)["data"]


def test_a_login_that_writes_is_shut_out(easel: LiveEasel, login: str) -> None:
    with psycopg.connect(login, autocommit=True) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT pg_current_xact_id()")
        with pytest.raises(psycopg.OperationalError):
            while True:
                connection.execute("SELECT 1")
                time.sleep(0.05)
    name = login.split()[0].removeprefix("user=")
    easel.wait_for(lambda: any("reporting_login_shut" in line and name in line for line in easel.log_lines()))
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        psycopg.connect(login)
