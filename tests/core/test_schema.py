"""Bringing a database to this version's schema."""

import pytest
from django.core.management import call_command
from django.db import connection, transaction

from core.schema import SchemaTooOld, schema_apply, schema_migrate


def catalogue():
    """Every function, trigger and view of ours, with its definition."""
    with connection.cursor() as cursor:
        cursor.execute("""
            SELECT 'function', proname, pg_get_functiondef(oid) FROM pg_proc
             WHERE pronamespace = 'public'::regnamespace AND prolang <> 13
            UNION ALL SELECT 'trigger', tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
            UNION ALL SELECT 'view', viewname, definition FROM pg_views WHERE schemaname = 'reporting'
            ORDER BY 1, 2, 3
        """)
        return cursor.fetchall()


def test_applying_the_sql_files_again_leaves_every_function_trigger_and_view_as_it_was():
    before = catalogue()
    schema_apply(provider_name="Easel")
    assert {kind for kind, _, _ in before} == {"function", "trigger", "view"}
    assert catalogue() == before


def test_a_trigger_that_went_missing_comes_back_with_the_next_migration():
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("DROP TRIGGER billing_entry_append_only ON billing_entry")
        before = catalogue()
        schema_apply(provider_name="Easel")
        came = [name for _, name, _ in set(catalogue()) - set(before)]
        transaction.set_rollback(True)
    assert came == ["billing_entry_append_only"]


def test_a_database_from_before_0_2_is_refused_with_the_way_out():
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE generation_job (id uuid)")
        with pytest.raises(SchemaTooOld, match="start with an empty database"):
            schema_migrate(provider_name="Easel")
        transaction.set_rollback(True)


def test_no_model_has_changed_without_a_migration():
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)
