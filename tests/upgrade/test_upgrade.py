"""A database of an earlier release, with data in it, comes to this version whole."""

import gzip
import os
import subprocess
import sys
import uuid
from importlib.resources import files
from pathlib import Path

import psycopg
import pytest
from django.conf import settings

from easel_local.postgres import psql_binary

RELEASES = sorted(Path(__file__).parent.glob("*.sql.gz"))


@pytest.fixture
def restored(request):
    """The URL of a new database that holds a release's dump."""
    name = f"upgrade_{uuid.uuid4().hex[:12]}"
    server = settings.EASEL.database_url
    url = server.replace(psycopg.conninfo.conninfo_to_dict(server)["dbname"], name, 1)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        psql = [psql_binary(), "--quiet", "--set=ON_ERROR_STOP=1", "-d", url]
        subprocess.run(psql, input=gzip.decompress(request.param.read_bytes()), check=True, stdout=subprocess.DEVNULL)
        yield url
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def counts(url):
    """Rows of every table that says who owes what."""
    tables = ("tenants_tenant", "jobs_job", "billing_usagerecord", "billing_charge", "billing_entry")
    with psycopg.connect(url) as connection:
        return {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}


def easel(url, *arguments, module="easel.cli.main"):
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "easel.settings"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_there_is_a_release_to_upgrade():
    assert RELEASES


@pytest.mark.parametrize("restored", RELEASES, ids=lambda file: file.name, indirect=True)
def test_a_release_with_data_is_migrated_twice_and_its_books_are_in_order(restored):
    before = counts(restored)
    assert all(before.values())
    for _ in range(2):
        migrated = easel(restored, "migrate")
        assert migrated.returncode == 0, migrated.stderr
    assert counts(restored) == before
    audited = easel(restored, "audit")
    assert audited.returncode == 0, audited.stdout + audited.stderr


def aliases(url):
    """The model and the format of each alias of the platform's."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT alias.name, model.name, response_format, ignored FROM serving_alias AS alias"
            " JOIN catalog_model AS model ON model.id = model_id WHERE tenant_id IS NULL"
        )
        return {name: (model, response_format, ignored) for name, model, response_format, ignored in rows}


def migrate(url, *target):
    # Migrations alone: `easel migrate` also registers the checkpoint of this machine.
    done = easel(url, "migrate", *target, module="django")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("restored", RELEASES[:1], ids=lambda file: file.name, indirect=True)
def test_an_older_installation_gets_the_names_that_clients_have_hard_coded_once(restored):
    migrate(restored)
    model, ignored = "z-image-demo", ["background", "moderation", "style"]
    formats = {"gpt-image-1": "", "gpt-image-1-mini": "", "dall-e-2": "url", "dall-e-3": "url"}
    assert aliases(restored) == {name: (model, response_format, ignored) for name, response_format in formats.items()}
    with psycopg.connect(restored) as connection:
        connection.execute("DELETE FROM serving_alias WHERE name = 'dall-e-2'")
        # The dump's machine had it elsewhere: another checkpoint would be a new model with aliases of its own.
        checkpoint = str(files("inference") / "demo_model" / "checkpoint")
        connection.execute("UPDATE catalog_modelversion SET checkpoint = %s", [checkpoint])
    assert easel(restored, "migrate").returncode == 0
    assert aliases(restored).keys() == formats.keys() - {"dall-e-2"}


@pytest.mark.parametrize("restored", RELEASES[:1], ids=lambda file: file.name, indirect=True)
def test_an_upgrade_changes_no_name_that_an_operator_has_given(restored):
    migrate(restored, "serving", "0002")
    with psycopg.connect(restored) as connection:
        connection.execute("INSERT INTO catalog_model (name, is_default, created_at) VALUES ('dall-e-2', false, now())")
        connection.execute(
            "INSERT INTO serving_alias (id, name, model_id, response_format, quality, size, ignored, is_lenient,"
            " created_at) SELECT gen_random_uuid(), 'dall-e-3', id, 'both', '', '', '{}', true, now()"
            " FROM catalog_model WHERE name = 'dall-e-2'"
        )
    migrate(restored)
    found = aliases(restored)
    assert found.keys() == {"gpt-image-1", "gpt-image-1-mini", "dall-e-3"}
    assert found["dall-e-3"] == ("dall-e-2", "both", [])
