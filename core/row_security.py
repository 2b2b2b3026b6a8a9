"""Row-level security: the role `easel_api` sees and changes rows of the tenant of the setting `easel.tenant` only.

It is the second wall: every query of the API starts from its tenant, and one that forgets to finds nothing of others.
The policies follow from the models. A table belongs to a tenant if it has a column of it, or refers to such a table by
a key that is never null. The tables' owner is not subject to them.
"""

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from django.apps import apps
from django.db import ProgrammingError, connection, transaction
from django.db.models import ForeignKey, Model
from psycopg import errors, sql

from core.errors import DomainError
from core.tenant_scope import ROLE, SETTING

TENANT = "tenants_tenant"
# A row of these without a tenant is everybody's to read. A row of another table without one is the platform's.
SHARED = {"catalog_pool", "serving_alias", "billing_pricebook", "tenants_blocklistentry", "tenants_blocklistrevision"}
# A version of a model is everybody's, though its pool may be a tenant's.
OF_NOBODY = {"catalog_modelversion"}
# An entry is written in one query with its transaction, which the entry's policy can't see yet. Its account it can.
PARENTS = {"billing_entry": "account"}
# What the API writes beside rows of tenants.
WRITABLE = {"core_lock", "core_configuration"}
DAY_LOCKS = "billing_daylock_"
UNREADABLE = ("auth_", "django_", "portal_")  # sign-in, second factors, sessions and permissions of operators

# The sub-select is evaluated once for a query, not for each row.
_CURRENT = f"(SELECT nullif(current_setting('{SETTING}', true), '')::uuid)"


class RoleMissing(DomainError, code="role_missing"):
    """The user of DATABASE_URL may not work in the role of the API's requests; the message says what to run.

    Do what the message says.
    """


class Ownership(NamedTuple):
    """Which rows of a table are a tenant's: those for which the SQL expression `owned` is true.

    Rows for which `readable` is true may be read.
    """

    owned: str | None  # None: nobody writes rows of the table in a tenant's name
    readable: str


def ownerships() -> dict[str, Ownership]:
    """Return the tenant-owned tables."""
    tables = {model._meta.db_table: model for model in apps.get_models(include_auto_created=True)}
    found = {TENANT: Ownership(f"id = {_CURRENT}", f"id = {_CURRENT}")}
    for name, model in tables.items():
        column = next((key.column for key in _foreign_keys(model) if _table(key) == TENANT), None)
        if column is not None:
            own = f"{column} = {_CURRENT}"
            found[name] = Ownership(own, f"{own} OR {column} IS NULL" if name in SHARED else own)
    while True:
        reached = {
            name: parent
            for name, model in tables.items()
            if name not in found and name not in OF_NOBODY and (parent := _by_parent(model, found)) is not None
        }
        if not reached:
            return found
        found |= reached


def _by_parent(model: type[Model], found: dict[str, Ownership]) -> Ownership | None:
    keys = [key for key in _foreign_keys(model) if not key.null and _table(key) in found]
    chosen = PARENTS.get(model._meta.db_table)
    # A key to what is only the tenant's says more than one to what is shared.
    keys.sort(key=lambda key: (key.name != chosen, _is_shared(found[_table(key)])))
    if not keys:
        return None
    key = keys[0]
    parent, target = _table(key), key.target_field.column
    # The parent's own policy holds in the sub-query.
    is_visible = f"EXISTS (SELECT FROM {parent} WHERE {parent}.{target} = {model._meta.db_table}.{key.column})"
    return Ownership(None if _is_shared(found[parent]) else is_visible, is_visible)


def _is_shared(ownership: Ownership) -> bool:
    return ownership.owned != ownership.readable


def _foreign_keys(model: type[Model]) -> Iterator["ForeignKey[Any, Any]"]:
    return (field for field in model._meta.concrete_fields if isinstance(field, ForeignKey))


def _table(key: "ForeignKey[Any, Any]") -> str:
    name: str = key.remote_field.model._meta.db_table
    return name


def policies_set() -> None:
    """Make the role and the policies, each in a transaction of its own: it locks its table. Raises `RoleMissing`.

    A policy that is as it should be is left alone.
    """
    role_make()
    for table, ownership in ownerships().items():
        _policies_set(table, ownership)


def rights_grant() -> None:
    """Let the role read what the API reads and write what it writes, as far as the policies let it."""
    written = {name for name, ownership in ownerships().items() if ownership.owned is not None} | WRITABLE
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'")
        found = [name for (name,) in cursor.fetchall()]
        tables = [name for name in found if not name.startswith(UNREADABLE)]
        withheld = [name for name in found if name.startswith(UNREADABLE)]
        cursor.execute(sql.SQL(f"REVOKE ALL ON {{}} FROM {ROLE}").format(_names(withheld)))
        writable = [name for name in tables if name in written or name.startswith(DAY_LOCKS)]
        for rights, names in (("SELECT", tables), ("INSERT, UPDATE, DELETE", writable)):
            cursor.execute(sql.SQL(f"GRANT {rights} ON {{}} TO {ROLE}").format(_names(names)))
        cursor.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {ROLE}")


def _names(names: list[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


_DIGEST = """
SELECT obj_description(oid, 'pg_policy') FROM pg_policy WHERE polrelid = %s::regclass AND polname = 'easel_read'
"""


def _policies_set(table: str, ownership: Ownership) -> None:
    queries = [
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"DROP POLICY IF EXISTS easel_read ON {table}",
        f"DROP POLICY IF EXISTS easel_write ON {table}",
        f"CREATE POLICY easel_read ON {table} FOR SELECT TO {ROLE} USING ({ownership.readable})",
    ]
    if ownership.owned is not None:
        own = f"USING ({ownership.owned}) WITH CHECK ({ownership.owned})"
        queries.append(f"CREATE POLICY easel_write ON {table} TO {ROLE} {own}")
    digest = hashlib.sha256("\n".join(queries).encode()).hexdigest()[:16]
    queries.append(f"COMMENT ON POLICY easel_read ON {table} IS '{digest}'")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_DIGEST, [table])
        if cursor.fetchone() != (digest,):
            cursor.execute("; ".join(queries))


# A role belongs to the whole server: another database may have created it, even at this moment.
_CREATE = f"""
DO $$ BEGIN
    IF to_regrole('{ROLE}') IS NULL THEN
        CREATE ROLE {ROLE} NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$;
"""
_GRANT = f"""
DO $$ BEGIN
    IF NOT pg_has_role('{ROLE}', 'MEMBER') THEN
        EXECUTE 'GRANT {ROLE} TO CURRENT_USER';
    ELSIF current_setting('server_version_num')::int >= 160000 AND NOT pg_has_role('{ROLE}', 'SET') THEN
        EXECUTE 'GRANT {ROLE} TO CURRENT_USER WITH SET TRUE, INHERIT FALSE';
    END IF;
END $$;
"""


def role_make() -> None:
    """Make the role, and let the user of DATABASE_URL work in it. Raises `RoleMissing`."""
    with connection.cursor() as cursor:
        try:
            with transaction.atomic():
                cursor.execute(_CREATE)
                cursor.execute(_GRANT)
        except ProgrammingError as error:
            if not isinstance(error.__cause__, errors.InsufficientPrivilege):
                raise
            cursor.execute("SELECT to_regrole(%s) IS NULL, quote_ident(current_user)", [ROLE])
            ((is_missing, user),) = cursor.fetchall()
            run = f"{f'CREATE ROLE {ROLE} NOLOGIN; ' if is_missing else ''}GRANT {ROLE} TO {user}"
            cause = "the user of DATABASE_URL may not work in the role of the API's requests, or not make it"
            raise RoleMissing(f"{cause}: as an administrator, run {run}, then `easel migrate` again") from error
