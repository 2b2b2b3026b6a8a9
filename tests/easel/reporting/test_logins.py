"""Logins that may read the views and nothing else."""

import uuid

import psycopg
import pytest
from django.db import connection
from psycopg import sql

from easel.reporting.logins import LoginRefused, login_set
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
