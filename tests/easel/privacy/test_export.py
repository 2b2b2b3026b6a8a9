"""An export: complete, of one tenant only, of one instant."""

import hashlib
import json
import zipfile

import pytest
from django.db import connection

from billing.models import Charge, UsageRecord
from easel.jobs.models import Job, Output
from easel.privacy.export import ExportExists, tenant_export
from easel.privacy.holdings import holdings
from easel.storage import store
from tests.conftest import NOW
from tests.easel.privacy.conftest import IN_BOTH_STORES, secret_of

pytestmark = pytest.mark.usefixtures("any_store")


def ignored(step: int, *, total: int) -> None:
    """Progress that the test ignores."""


def lines(archive: zipfile.ZipFile, name: str) -> list[dict]:
    return [json.loads(line) for line in archive.read(f"{name}.jsonl").splitlines()]


@pytest.fixture
def exported(alice, bob, furnish, tmp_path):
    """Alice's zip, while Bob has as much."""
    furnish(alice)
    furnish(bob)
    tenant_export(tenant=alice.tenant, to=tmp_path / "alice.zip", now=NOW, progress=ignored)
    with zipfile.ZipFile(tmp_path / "alice.zip") as archive:
        yield archive


@IN_BOTH_STORES
def test_every_row_and_file_is_there_as_the_manifest_says(alice, exported):
    contents = json.loads(exported.read("manifest.json"))["contents"]
    for name, said in contents.items():
        data = exported.read(name)
        assert (len(data.splitlines()), hashlib.sha256(data).hexdigest()) == (said["rows"], said["sha256"]), name
    of_alice = {"tenant": alice.tenant}
    counts = {
        "job": Job.objects.filter(**of_alice).count(),
        "output": Output.objects.filter(job__tenant=alice.tenant).count(),
        "usage_record": UsageRecord.objects.filter(**of_alice).count(),
        "charge": Charge.objects.filter(usage_record__tenant=alice.tenant).count(),
    }
    assert {name: len(lines(exported, name)) for name in counts} == counts
    assert counts["job"] == 9
    files = lines(exported, "files")
    assert len(files) == 10  # the failed job has none, the adapter has one, and so has the batch
    for file in files:
        assert hashlib.sha256(exported.read(file["path"])).hexdigest() == file["sha256"]
    assert set(exported.namelist()) == {*contents, "manifest.json", *(file["path"] for file in files)}


@IN_BOTH_STORES
def test_the_images_and_prompts_are_those_of_the_jobs(alice, exported):
    job = next(job for job in lines(exported, "job") if job["state"] == "succeeded")
    assert (job["prompt"], job["metadata"]) == (f"a {secret_of(alice)}", {secret_of(alice): secret_of(alice)})
    (output,) = (output for output in lines(exported, "output") if output["job_id"] == job["id"])
    path = f"files/{output['storage_key'].partition('/')[2]}"
    assert exported.read(path) in (job["id"].encode(), (job["cached_from_id"] or "").encode())


def test_nothing_of_another_tenant_and_no_secret_is_in_there(bob, exported):
    everything = b"".join(exported.read(name) for name in exported.namelist())
    for theirs in (bob.tenant.slug, str(bob.tenant.id), bob.key.key_id, *map(str, bob.tenant.jobs.values_list("id"))):
        assert theirs.encode() not in everything
    (key,) = lines(exported, "api_key")
    columns = {"id", "key_id", "tenant_id", "project_id", "name", "scopes", "is_lenient", "created_at", "revoked_at"}
    columns |= {"successor_id", "first_key_id", "expires_at", "addresses"}
    assert set(key) == columns
    assert b"salt" not in exported.read("tenant.jsonl")


def test_every_table_of_the_platform_that_names_a_tenant_is_exported_or_the_platforms_own():
    names = {holding.model._meta.db_table for holding in holdings()}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name FROM information_schema.columns WHERE column_name = 'tenant_id'"
            " AND table_schema = 'public'"
        )
        with_tenant = {table for (table,) in cursor.fetchall()}
    platforms = {
        "jobs_cachedresult",
        "jobs_fairshare",
        "jobs_batchshare",
        "catalog_pool",
        "tenants_blocklistrevision",
        "core_idempotentrequest",
    }
    assert with_tenant - names == platforms


def test_a_folder_holds_the_same_and_nothing_is_overwritten(alice, furnish, tmp_path):
    furnish(alice)
    steps = []
    tenant_export(tenant=alice.tenant, to=tmp_path / "out", now=NOW, progress=lambda n, total: steps.append(total))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["contents"]["files.jsonl"]["rows"] == 10
    assert set(steps) == {len(steps)}
    assert (tmp_path / "out").stat().st_mode & 0o077 == 0
    with pytest.raises(ExportExists):
        tenant_export(tenant=alice.tenant, to=tmp_path / "out", now=NOW, progress=ignored)


def test_a_file_that_goes_meanwhile_is_named(alice, furnish, tmp_path):
    (job, *_) = furnish(alice)
    store().delete(job.outputs.get().storage_key)
    manifest = tenant_export(tenant=alice.tenant, to=tmp_path / "a.zip", now=NOW, progress=ignored)
    assert manifest["contents"]["files.jsonl"]["missing"] == 1


def test_an_export_that_fails_leaves_no_file_of_its_name(alice, furnish, tmp_path):
    def full(step: int, *, total: int) -> None:
        raise OSError("no space left on device")

    furnish(alice)
    with pytest.raises(OSError, match="no space"):
        tenant_export(tenant=alice.tenant, to=tmp_path / "a.zip", now=NOW, progress=full)
    assert not (tmp_path / "a.zip").exists()
    tenant_export(tenant=alice.tenant, to=tmp_path / "a.zip", now=NOW, progress=ignored)
    assert zipfile.ZipFile(tmp_path / "a.zip").testzip() is None


def test_rows_are_of_the_instant_at_which_the_export_began(alice, furnish, submit, tmp_path):
    furnish(alice)
    before = Job.objects.filter(tenant=alice.tenant).count()
    made = []

    def meanwhile(step: int, *, total: int) -> None:
        if not made:
            from threading import Thread

            thread = Thread(target=lambda: (made.append(submit(alice)), connection.close()))
            thread.start()
            thread.join()

    manifest = tenant_export(tenant=alice.tenant, to=tmp_path / "a.zip", now=NOW, progress=meanwhile)
    assert manifest["contents"]["job.jsonl"]["rows"] == before
    assert Job.objects.filter(tenant=alice.tenant).count() == before + 1
