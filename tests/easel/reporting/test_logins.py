"""Logins that may read the views and nothing else."""

import uuid
from contextlib import ExitStack

import psycopg
import pytest
from django.db import connection
from psycopg import sql

from core.models import AuditEvent
from easel.reporting import sessions
from easel.reporting.logins import LoginRefused, login_set
from easel.reporting.sessions import sessions_end
from tests.conftest import NOW
from tests.easel.reporting.conftest import VIEWS


@pytest.fixture
def name():
    made = f"reader_{uuid.uuid4().hex[:12]}"
    yield made
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(made)))


@pytest.fixture
def reader(name):
    """A connection with the login of Grafana."""
    login_set(name=name, password="first")
    given = connection.get_connection_params()
    address = {key: given[key] for key in ("host", "port") if given.get(key)}
    with psycopg.connect(**address, dbname=given["dbname"], user=name, password="first", autocommit=True) as made:
        yield made


def password_of(name):
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [name])
        return cursor.fetchone()[0]


@pytest.mark.parametrize("view", VIEWS)
def test_a_login_reads_every_view(reader, view):
    assert reader.execute(f"SELECT count(*) FROM reporting.{view}").fetchone()[0] >= 0


def test_a_login_reads_no_table(reader):
    tables = connection.introspection.table_names()
    refused = 0
    for table in tables:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute(sql.SQL("SELECT 1 FROM {}").format(sql.Identifier(table)))
        refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE reporting.balances SET credit_micros = 1",
        "DELETE FROM reporting.charges",
        "INSERT INTO billing_ledgeraccount (kind) VALUES ('credit')",
        "UPDATE billing_ledgeraccount SET balance_micros = 1",
        "CREATE TABLE reporting.mine (id int)",
        "CREATE VIEW reporting.mine AS SELECT 1",
        "SET ROLE postgres",
    ],
)
def test_a_login_changes_nothing_even_where_it_asks_to_write(reader, statement):
    reader.execute("SET default_transaction_read_only = off")
    with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.ObjectNotInPrerequisiteState)):
        reader.execute(statement)


def test_a_login_begins_read_only_and_with_a_limit_of_time(reader):
    shown = [
        reader.execute(f"SHOW {setting}").fetchone()[0]
        for setting in ("default_transaction_read_only", "statement_timeout")
    ]
    assert shown == ["on", "1min"]


def test_setting_a_login_again_changes_its_password(name):
    login_set(name=name, password="first")
    before = password_of(name)
    login_set(name=name, password="second")
    assert before.startswith("SCRAM-SHA-256$")
    assert password_of(name) not in (before, None)


def test_a_role_that_is_not_for_reports_keeps_its_password(name):
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'its own'").format(sql.Identifier(name)))
    before = password_of(name)
    with pytest.raises(LoginRefused, match="exists and is not for reports"):
        login_set(name=name, password="stolen")
    assert password_of(name) == before


def test_a_user_that_may_not_create_roles_gets_the_reason(name):
    login_set(name=name, password="first")
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(name)))
        try:
            with pytest.raises(LoginRefused, match="may not create roles"):
                login_set(name=f"{name}_2", password="x")
        finally:
            cursor.execute("RESET ROLE")


@pytest.mark.parametrize("bad", ["postgres", "easel_reporting", "pg_monitor", "", "a b", 'x"; DROP', "Ann", "é"])
def test_other_names_are_refused(bad):
    with pytest.raises(LoginRefused):
        login_set(name=bad, password="x")


def may_log_in(name):
    with connection.cursor() as cursor:
        cursor.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", [name])
        return cursor.fetchone()[0]


@pytest.mark.parametrize(
    "statements",
    [
        ["SELECT pg_advisory_lock(hashtext('easel dispatch'), 1)"],
        ["SELECT lo_create(0)"],
        ["SELECT lo_from_bytea(0, 'x')"],
        ["SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000))"],
        ["CREATE TEMPORARY TABLE mine (id int)"],
        ["CREATE TABLE public.mine (id int)"],
        ["SET temp_file_limit = -1"],
        ["LOCK TABLE reporting.balances IN ROW EXCLUSIVE MODE"],
        ["LOCK TABLE core_lock IN ACCESS SHARE MODE"],
        ["SELECT name FROM core_lock FOR UPDATE"],
        ["ALTER ROLE CURRENT_USER CONNECTION LIMIT 1000"],
    ],
)
def test_a_login_can_neither_lock_nor_fill_the_disk(reader, statements):
    reader.execute("SET default_transaction_read_only = off")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        for statement in statements:
            with reader.transaction():
                reader.execute(statement)


def test_a_login_that_writes_is_shut_until_it_is_given_a_new_password(reader, name):
    """As one can where the platform is no superuser: there, nobody can forbid it."""
    reader.execute("SET default_transaction_read_only = off")
    reader.execute("BEGIN")
    reader.execute("SELECT pg_current_xact_id()")
    assert sessions_end(have_replica=False, now=NOW) == 1
    with pytest.raises(psycopg.OperationalError):
        reader.execute("SELECT 1")
    assert not may_log_in(name)
    assert AuditEvent.objects.get(subject=name).details == {"fault": "writes"}
    login_set(name=name, password="second")
    assert may_log_in(name)


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("SELECT lo_from_bytea(0, 'x')", "writes"),
        ("SELECT pg_advisory_lock(n) FROM generate_series(1, 100) n", "locks"),
    ],
)
def test_what_a_login_locked_and_wrote_is_gone_with_its_session(reader, name, statement, fault):
    with connection.cursor() as cursor:
        allowed = sql.SQL("GRANT EXECUTE ON FUNCTION pg_advisory_lock(bigint), lo_from_bytea(oid, bytea) TO {}")
        cursor.execute(allowed.format(sql.Identifier(name)))
        try:
            reader.execute("SET default_transaction_read_only = off")
            reader.execute(statement)
            sessions_end(have_replica=False, now=NOW)
            cursor.execute("SELECT count(*) FROM pg_largeobject_metadata")
            assert cursor.fetchone()[0] == 0
            assert not may_log_in(name)
            with pytest.raises(psycopg.OperationalError):
                reader.execute("SELECT 1")
            assert AuditEvent.objects.get(subject=name, action="reporting.shut").details == {"fault": fault}
        finally:
            cursor.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))


def test_a_session_that_lifts_its_time_limits_is_ended_all_the_same(reader, name, monkeypatch):
    reader.execute("SET idle_in_transaction_session_timeout = 0")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM reporting.jobs")
    assert sessions_end(have_replica=False, now=NOW) == 0
    monkeypatch.setattr(sessions, "IDLE_SECONDS_MAX", 0)
    assert sessions_end(have_replica=False, now=NOW) == 1
    with pytest.raises(psycopg.OperationalError):
        reader.execute("SELECT 1")
    assert may_log_in(name), "a slow report is no attack"


def test_a_login_stays_in_no_database_that_every_server_has(reader, name):
    """There nobody has taken temporary tables and the functions of locks from it."""
    given = {key: value for key, value in reader.info.get_parameters().items() if key in ("host", "port")}
    with psycopg.connect(**given, dbname="postgres", user=name, password="first", autocommit=True) as elsewhere:
        assert sessions_end(have_replica=False, now=NOW) == 1
        with pytest.raises(psycopg.OperationalError):
            elsewhere.execute("SELECT 1")
    assert reader.execute("SELECT 1").fetchone() == (1,)
    assert may_log_in(name)


def test_a_platform_without_a_superuser_ends_sessions_too(reader, name):
    """Its user is a member of the login's role."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE ROLE easel_test_owner CREATEROLE")
        try:
            cursor.execute("ALTER SCHEMA reporting OWNER TO easel_test_owner")
            cursor.execute("CALL reporting_login_bound(%s)", [name])
            reader.execute("BEGIN")
            reader.execute("SELECT pg_current_xact_id()")
            cursor.execute("GRANT SELECT, INSERT ON core_auditevent TO easel_test_owner; SET ROLE easel_test_owner")
            assert sessions_end(have_replica=False, now=NOW) == 1
            with pytest.raises(psycopg.OperationalError):
                reader.execute("SELECT 1")
        finally:
            cursor.execute("RESET ROLE; ALTER SCHEMA reporting OWNER TO CURRENT_USER")
            cursor.execute("DROP OWNED BY easel_test_owner; DROP ROLE easel_test_owner")


def test_a_login_opens_ten_connections_and_no_more(reader, name):
    with ExitStack() as opened:
        for _ in range(9):
            opened.enter_context(psycopg.connect(reader.info.dsn, password="first"))
        with pytest.raises(psycopg.OperationalError, match="too many connections"):
            psycopg.connect(reader.info.dsn, password="first")


def test_where_reports_have_a_replica_a_login_stays_on_no_other_server(reader, name):
    assert sessions_end(have_replica=True, now=NOW) == 1
    with pytest.raises(psycopg.OperationalError):
        reader.execute("SELECT 1")
    assert may_log_in(name)
