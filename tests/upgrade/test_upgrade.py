"""A database of an earlier release, with data in it, comes to this version whole."""

import gzip
import os
import subprocess
import sys
import uuid
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


def easel(url, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "easel.cli.main", *arguments],
        env={**os.environ, "DATABASE_URL": url},
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
