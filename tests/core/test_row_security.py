"""The second wall: in the role of the API's requests, raw SQL finds rows of one tenant only."""

import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.contrib.postgres.fields import ArrayField
from django.db import ProgrammingError, connection, models, transaction
from psycopg import sql
from psycopg.types.json import Json

from core.row_security import SHARED, TENANT, RoleMissing, ownerships, role_make
from core.tenant_scope import ROLE
from tests.conftest import NOW

# Tables of nobody's, each with the reason why no tenant's rows are in it.
UNOWNED = {
    "auth_group": "operators",
    "auth_group_permissions": "operators",
    "auth_permission": "operators",
    "auth_user": "operators",
    "auth_user_groups": "operators",
    "auth_user_user_permissions": "operators",
    "django_admin_log": "operators",
    "django_content_type": "names of models",
    "django_migrations": "names of migrations",
    "django_session": "operators",
    "portal_secondfactor": "operators",
    "core_configuration": "one number",
    "core_lock": "names of locks",
    "billing_statementsequence": "the last number of a statement",
    "billing_storageday": "days",
    "billing_costday": "days",
    **{f"billing_daylock_{day}": "empty" for day in range(7)},
    "catalog_model": "the catalogue",
    "catalog_modelversion": "the catalogue",
    "serving_route": "the catalogue",
    "serving_rollout": "the catalogue",
    "webhooks_webhooktotal": "sums of all tenants",
}


def tables():
    with connection.cursor() as cursor:
        cursor.execute("""
            SELECT relname, relrowsecurity, relacl::text ~ 'easel_api=[a-z]*[awd]',
                   EXISTS (SELECT FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'tenant_id'),
                   EXISTS (SELECT FROM pg_policy WHERE polrelid = pg_class.oid AND polcmd = '*')
              FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
        """)
        return cursor.fetchall()


def test_every_table_has_a_policy_or_a_reason_to_have_none():
    """A new table must be a tenant's, by a column or a key, or be listed here."""
    found = {name: has_policy for name, has_policy, *_ in tables()}
    assert {name for name, has_policy in found.items() if not has_policy} == set(UNOWNED)
    assert {name for name, _, _, has_tenant, _ in tables() if has_tenant} <= set(ownerships())
    assert set(ownerships()) == set(found) - set(UNOWNED)


def test_the_api_writes_tables_of_tenants_only_but_for_locks_and_the_revision():
    writable = {name for name, _, is_writable, *_ in tables() if is_writable}
    assert {name for name in writable if name in UNOWNED} == {
        "core_configuration",
        "core_lock",
        *(name for name in UNOWNED if name.startswith("billing_daylock")),
    }
    assert {name for name in writable if name not in UNOWNED} <= {name for name, *_, writes in tables() if writes}


@dataclass
class Row:
    """A row of a tenant in a table, made of the table's columns alone."""

    table: str
    key_column: str
    values: dict[str, Any]

    @property
    def key(self) -> Any:
        return self.values[self.key_column]


def value_of(field, number):
    """Some value of a field's type; of two numbers, two."""
    if isinstance(field, models.UUIDField):
        return uuid.UUID(int=number)
    if isinstance(field, models.BooleanField):
        return False
    if isinstance(field, models.JSONField):
        return Json([])
    if isinstance(field, ArrayField):
        return []
    if isinstance(field, models.BinaryField):
        return str(number).encode()[-32:]
    if isinstance(field, models.DateTimeField):
        return NOW
    if isinstance(field, models.DateField):
        return NOW.date()
    if isinstance(field, models.CharField | models.TextField):
        return str(number)[-(field.max_length or 30) :]
    if isinstance(field, models.DecimalField):
        return number % 2
    if isinstance(field, models.SmallIntegerField):
        return number % 30000
    return number % 2_000_000_000


def rows_insert(cursor, number):
    """Insert a row of one new tenant into each table of tenants; return them by table."""
    made = {}
    by_table = {model._meta.db_table: model for model in apps.get_models(include_auto_created=True)}
    for table in ownerships():  # a table comes after those that make it a tenant's
        meta, values = by_table[table]._meta, {}
        for field in meta.concrete_fields:
            target = field.remote_field.model._meta.db_table if field.remote_field else None
            if target in made:
                values[field.column] = made[target].key
            elif not field.null:
                values[field.column] = value_of(field.target_field if target else field, number)
        made[table] = Row(table, meta.pk.column, values)
        insert(cursor, made[table])
    return made


def insert(cursor, row):
    columns, marks = zip(*((sql.Identifier(name), sql.Placeholder()) for name in row.values), strict=True)
    query = sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES ({})")
    filled = query.format(sql.Identifier(row.table), sql.SQL(", ").join(columns), sql.SQL(", ").join(marks))
    cursor.execute(filled, list(row.values.values()))


@pytest.fixture(scope="module")
def two_tenants():
    """A cursor, and a row of each of two tenants in every table of tenants, in a transaction that is undone.

    Triggers and checks are off in it: what the rows say is of no account, only whose they are.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("""
            SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname) FROM pg_constraint
             WHERE contype = 'c' AND connamespace = 'public'::regnamespace
        """)
        for (query,) in cursor.fetchall():
            cursor.execute(query)
        cursor.execute("SET LOCAL session_replication_role = replica")
        number = 10**9 + uuid.uuid4().int % 10**8 * 2
        yield cursor, rows_insert(cursor, number), rows_insert(cursor, number + 1)
        transaction.set_rollback(True)


@contextmanager
def api_role(cursor, tenant_id):
    """As the API's requests run, for a caller that found a way to send any SQL; undone at the end."""
    savepoint = transaction.savepoint()
    try:
        cursor.execute("SELECT set_config('role', %s, true), set_config('easel.tenant', %s, true)", [ROLE, tenant_id])
        yield
    finally:
        transaction.savepoint_rollback(savepoint)


def refused(cursor, query, parameters=None):
    try:
        with transaction.atomic():
            query(cursor) if parameters is None else cursor.execute(query, parameters)
    except ProgrammingError as error:
        return isinstance(error.__cause__, psycopg.errors.InsufficientPrivilege)
    return False


def test_raw_sql_of_one_tenant_reads_and_changes_no_row_of_another(two_tenants):
    cursor, own, others = two_tenants
    with api_role(cursor, str(own[TENANT].key)):
        for table, ownership in ownerships().items():
            mine, theirs = own[table], others[table]
            where, keys = f"WHERE {mine.key_column} = ANY(%s)", [[mine.key, theirs.key]]
            cursor.execute(f"SELECT {mine.key_column} FROM {table} {where}", keys)
            assert cursor.fetchall() == [(mine.key,)], table
            assert refused(cursor, lambda cursor, row=theirs: insert(cursor, row)), table
            change = f"UPDATE {table} SET {mine.key_column} = {mine.key_column} {where}"
            if ownership.owned is None:
                assert refused(cursor, change, keys), table
                continue
            cursor.execute(change, keys)
            assert cursor.rowcount == 1, table
            if "tenant_id" in mine.values:
                given = f"UPDATE {table} SET tenant_id = %s {where}"
                assert refused(cursor, given, [theirs.values["tenant_id"], *keys]), table
        for table in reversed(ownerships()):
            if ownerships()[table].owned is not None:
                cursor.execute(f"DELETE FROM {table} WHERE {others[table].key_column} = %s", [others[table].key])
                assert cursor.rowcount == 0, table


def test_raw_sql_without_a_tenant_finds_nothing_at_all(two_tenants):
    cursor, own, others = two_tenants
    for nobody in ("", str(uuid.uuid4())):
        with api_role(cursor, nobody):
            for table, row in own.items():
                cursor.execute(
                    f"SELECT count(*) FROM {table} WHERE {row.key_column} = ANY(%s)", [[row.key, others[table].key]]
                )
                assert cursor.fetchall() == [(0,)], table
                if table not in SHARED and ownerships()[table].owned is not None:
                    cursor.execute(f"SELECT EXISTS (SELECT FROM {table})")
                    assert cursor.fetchall() == [(False,)], table


def test_the_apis_role_reads_nothing_of_operators(two_tenants):
    cursor, own, _ = two_tenants
    with api_role(cursor, str(own[TENANT].key)):
        tables = [name for name, reason in UNOWNED.items() if reason == "operators"]
        assert all(refused(cursor, f"SELECT FROM {name}", []) for name in tables)


def test_a_user_that_may_not_make_the_role_learns_what_an_administrator_runs():
    """As on a managed server: it needs no superuser, but to be a member of the role."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("CREATE ROLE plain_owner; SET LOCAL ROLE plain_owner")
        with pytest.raises(RoleMissing, match=r"run GRANT easel_api TO plain_owner, then `easel migrate` again"):
            role_make()
        cursor.execute("RESET ROLE; GRANT easel_api TO plain_owner; SET LOCAL ROLE plain_owner")
        role_make()
        transaction.set_rollback(True)
