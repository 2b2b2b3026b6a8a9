"""How many files an account may store, how many bytes, and how often it may upload."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import openai
import pytest
from django.db import connection

from easel.batches import files
from easel.batches.errors import FilesTooMany, UploadsLimited
from easel.batches.file_limits import file_use
from easel.batches.files import file_add, file_delete
from easel.batches.models import File
from easel.storage import store
from tenants.models import Quota
from tenants.quotas import QuotaInvalid, quota_set
from tests.conftest import NOW
from tests.easel.api.conftest import call
from tests.easel.batches.conftest import sdk


@pytest.fixture
def limited(alice):
    """Set limits of alice's account: `limited(stored_files_max=1)`."""

    def limit(**limits):
        quota_set(tenant=alice.tenant, api_key=None, limits=limits, now=NOW)
        return alice

    return limit


def upload(customer, content=b"{}\n"):
    return sdk(customer, lambda client: client.files.create(file=("a.jsonl", content), purpose="batch"))


def add(tenant, *, now, content=b"{}\n"):
    return file_add(tenant=tenant, content=io.BytesIO(content), size_bytes=len(content), filename="a.jsonl", now=now)


def refusal(customer, content=b"{}\n"):
    with pytest.raises(openai.RateLimitError) as refused:
        upload(customer, content)
    return refused.value


def test_one_file_more_than_may_be_stored_is_refused_until_one_is_deleted(limited):
    alice = limited(stored_files_max=2)
    first = upload(alice)
    upload(alice)
    error = refusal(alice)
    assert (error.code, error.type, error.response.headers["x-should-retry"]) == (
        "file_count_exceeded",
        "insufficient_quota",
        "false",
    )
    assert File.objects.filter(tenant=alice.tenant).count() == 2
    sdk(alice, lambda client: client.files.delete(first.id))
    upload(alice)
    assert refusal(alice).code == "file_count_exceeded"


def test_files_may_fill_their_bytes_to_the_last(limited):
    alice = limited(stored_bytes_max=10)
    upload(alice, b"x" * 7)
    assert refusal(alice, b"x" * 4).code == "file_bytes_exceeded"
    upload(alice, b"x" * 3)
    assert refusal(alice, b"x").code == "file_bytes_exceeded"


def test_a_body_that_has_no_room_is_refused_before_its_form_is_read(limited):
    alice = limited(stored_bytes_max=10)
    # This is no form at all, which is found out by reading it.
    answer = call("POST", "/v1/files", alice, content=b"x" * 200_000, headers={"Content-Type": "multipart/form-data"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "file_bytes_exceeded")


def test_uploads_in_a_minute_are_limited_though_their_files_are_deleted(limited):
    alice = limited(uploads_per_minute=2)
    for _ in range(2):
        file = upload(alice)
        sdk(alice, lambda client, file=file: client.files.delete(file.id))
    error = refusal(alice)
    assert (error.code, error.response.headers["x-should-retry"]) == ("upload_rate_exceeded", "true")
    assert 1 <= int(error.response.headers["retry-after"]) <= 60


def test_the_next_upload_may_come_when_the_wait_is_over(limited):
    tenant = limited(uploads_per_minute=2).tenant
    add(tenant, now=NOW)
    add(tenant, now=NOW + timedelta(seconds=20))
    with pytest.raises(UploadsLimited) as refused:
        add(tenant, now=NOW + timedelta(seconds=25))
    assert refused.value.retry_after_seconds == 35
    add(tenant, now=NOW + timedelta(seconds=60))
    with pytest.raises(UploadsLimited) as refused:
        add(tenant, now=NOW + timedelta(seconds=60))
    assert refused.value.retry_after_seconds == 20


def test_a_limit_of_no_uploads_asks_for_no_retry(limited):
    error = refusal(limited(uploads_per_minute=0))
    assert (error.response.headers["x-should-retry"], "retry-after" in error.response.headers) == ("false", False)


def test_an_account_without_limits_of_its_own_has_500_files_1_gib_and_30_uploads_a_minute(alice):
    rows = call("GET", "/v1/quota", alice).json()["data"]
    found = {row["limit"]: (row["of"], row["value"], row["used"]) for row in rows}
    assert found["stored_files_max"] == ("account", 500, 0)
    assert found["stored_bytes_max"] == ("account", 1_073_741_824, 0)
    assert found["uploads_per_minute"] == ("account", 30, 0)
    Quota.objects.filter(tenant=alice.tenant).delete()
    for _ in range(30):
        add(alice.tenant, now=NOW)
    with pytest.raises(UploadsLimited):
        add(alice.tenant, now=NOW)


def test_the_quota_shows_what_files_use(limited):
    alice = limited(stored_files_max=5, stored_bytes_max=100, uploads_per_minute=7)
    upload(alice, b"x" * 30)
    gone = upload(alice, b"x" * 20)
    sdk(alice, lambda client: client.files.delete(gone.id))
    rows = {row["limit"]: row for row in call("GET", "/v1/quota", alice).json()["data"]}
    shown = {name: (row["value"], row["used"], row["remaining"]) for name, row in rows.items()}
    assert shown["stored_files_max"] == (5, 1, 4)
    assert shown["stored_bytes_max"] == (100, 30, 70)
    assert shown["uploads_per_minute"] == (7, 2, 5)


def test_neither_outputs_nor_other_tenants_files_count(limited, bob):
    alice = limited(stored_files_max=1)
    add(bob.tenant, now=NOW)
    File.objects.create(tenant=alice.tenant, purpose="batch_output", filename="a.jsonl", created_at=NOW, expires_at=NOW)
    assert set(file_use(alice.tenant, now=NOW).values()) == {0}
    upload(alice)


def test_a_key_has_no_limits_of_files(alice):
    with pytest.raises(QuotaInvalid, match="limit of accounts"):
        quota_set(tenant=alice.tenant, api_key=alice.key, limits={"stored_files_max": 1}, now=NOW)


def test_of_two_uploads_at_the_last_place_one_succeeds_and_nothing_of_the_other_is_left(limited, monkeypatch):
    tenant, real = limited(stored_files_max=1).tenant, store()
    keys, both_have_room = [], threading.Barrier(2)

    class Meeting:
        """The store, in which the two meet after each has found room."""

        def put(self, key, content, content_type):
            real.put(key, content, content_type)
            keys.append(key)
            both_have_room.wait(timeout=60)

        delete = staticmethod(real.delete)

    monkeypatch.setattr(files, "store", Meeting)

    def work(_):
        try:
            return add(tenant, now=NOW).storage_key
        except FilesTooMany:
            return None
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as threads:
        stored = [key for key in threads.map(work, range(2)) if key]
    assert len(stored) == 1
    assert File.objects.get(tenant=tenant).storage_key == stored[0]
    real.get(stored[0])
    (other,) = set(keys) - set(stored)
    with pytest.raises(FileNotFoundError):
        real.get(other)


def test_a_deleted_file_gives_its_place_once(limited):
    tenant = limited(stored_files_max=1).tenant
    file = add(tenant, now=NOW)
    for _ in range(2):
        file_delete(file=file, now=NOW)
    add(tenant, now=NOW)
    with pytest.raises(FilesTooMany):
        add(tenant, now=NOW)
