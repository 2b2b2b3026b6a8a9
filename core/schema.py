"""Brings the database to this version's schema: Django's migrations, then the SQL files of each app.

Functions, triggers and views follow from the code, so they are no migrations. Each app keeps them in `sql/`, and all of
them are applied again, idempotently, after every migration. Views are dropped before the migrations run, because
PostgreSQL changes no column that a view reads.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.db import connection, transaction
from django.db.migrations.exceptions import MigrationSchemaMissing
from django.db.migrations.recorder import MigrationRecorder
from psycopg import sql

from core.errors import DomainError
from core.row_security import policies_set, rights_grant


class SchemaTooOld(DomainError, code="schema_too_old"):
    """This database was made by a version of Easel before 0.2 and can't be upgraded: start with an empty database.

    Point DATABASE_URL to an empty database and run `easel migrate`.
    """


def schema_migrate(*, provider_name: str) -> None:
    """Run missing migrations and apply the SQL files; concurrent processes take turns. Raises `SchemaTooOld`."""
    with _turn():
        _refuse_old_schema()
        with transaction.atomic():
            _drop_views()
        call_command("migrate", interactive=False, verbosity=0)
        policies_set()
        schema_apply(provider_name=provider_name)


@contextmanager
def _turn() -> Iterator[None]:
    """Wait until no other process migrates, and keep others out.

    The lock is that of Django's table of migrations, held on a connection of its own because each migration is a
    transaction. Its mode lets migrations be recorded. A role without rights on the table can't take it, as it could an
    advisory lock.
    """
    table = MigrationRecorder.Migration._meta.db_table
    with psycopg.connect(settings.EASEL.database_url) as holder:
        holder.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        # Of two processes that create the table at once, one is refused, and the table is there.
        with suppress(MigrationSchemaMissing):
            MigrationRecorder(connection).ensure_schema()
        holder.execute(sql.SQL("LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE").format(sql.Identifier(table)))
        yield


@transaction.atomic
def schema_apply(*, provider_name: str) -> None:
    """Apply the SQL files of all apps, in the apps' order. `{provider}` is replaced by the quoted provider name."""
    _drop_views()
    with connection.cursor() as cursor:
        provider = sql.Literal(provider_name).as_string(cursor.connection)
        for file in schema_files():
            cursor.execute(file.read_text().replace("{provider}", provider))
    rights_grant()


def schema_files() -> list[Path]:
    """Return every app's `sql/*.sql` in the order in which they are applied."""
    return [file for app in apps.get_app_configs() for file in sorted(Path(app.path, "sql").glob("*.sql"))]


def _drop_views() -> None:
    """Drop our views without CASCADE: PostgreSQL refuses, and names a foreign view that is built on one of ours."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT string_agg(format('%I.%I', schemaname, viewname), ', ') FROM pg_views"
            " WHERE schemaname = 'reporting'"
        )
        ((views,),) = cursor.fetchall()
        if views:
            cursor.execute(f"DROP VIEW {views}")


def _refuse_old_schema() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('public.generation_job') IS NOT NULL")
        ((is_old,),) = cursor.fetchall()
    if is_old:
        raise SchemaTooOld
