import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from django.db import connections
from safetensors.numpy import save

from billing.models import StoredObject
from easel.catalog.adapters import adapter_add_version, adapter_files_delete_retired, adapters_resolve
from easel.catalog.errors import AdapterNameInvalid, AdapterNotFound, AdapterRefused, AdapterRetired
from easel.catalog.models import Adapter
from easel.serving.experiments import adapter_retire
from easel.storage import store
from tests.conftest import NOW

LIMITS = {"bytes_max": 10**6, "rank_max": 8}


@pytest.fixture
def add(version, weights):
    def make(customer, *, name="outline", scale=1.0):
        data = save({key: np.array(value * scale, np.float32) for key, value in weights().items()})
        return adapter_add_version(
            project=customer.project,
            name=name,
            data=data,
            base=version,
            **LIMITS,
            now=NOW,
        )

    return make


def test_an_upload_is_version_1_and_its_canonical_file_is_stored(alice, add):
    added = add(alice)
    assert (added.number, added.rank_max, added.modules) == (1, 4, 2)
    assert len(store().get(added.storage_key)) == added.size_bytes
    assert added.storage_key.startswith(f"{alice.tenant.slug}/")


def test_another_file_is_the_next_version(alice, add):
    add(alice)
    assert add(alice, scale=2.0).number == 2


def test_the_same_file_again_is_the_same_version(alice, add):
    assert add(alice) == add(alice)


def test_a_refused_file_leaves_no_adapter_behind(alice, version):
    with pytest.raises(AdapterRefused):
        adapter_add_version(
            project=alice.project,
            name="bad",
            data=b"",
            base=version,
            **LIMITS,
            now=NOW,
        )
    assert not Adapter.objects.filter(tenant=alice.tenant).exists()


@pytest.mark.parametrize("name", ["", "Outline", "a b", "../etc", "a" * 41, "é", "outline\n"])
def test_a_name_that_is_no_dns_label_is_refused(alice, add, name):
    with pytest.raises(AdapterNameInvalid):
        add(alice, name=name)


def test_requests_use_the_newest_version(alice, version, add):
    add(alice)
    newest = add(alice, scale=2.0)
    assert adapters_resolve(tenant=alice.tenant, names=["outline"], version=version) == [newest]


def test_two_tenants_may_name_an_adapter_alike(alice, bob, version, add):
    hers, his = add(alice), add(bob)
    assert hers != his
    assert adapters_resolve(tenant=bob.tenant, names=["outline"], version=version) == [his]


def test_a_retired_adapter_is_out_of_use_until_its_next_upload(alice, version, add):
    add(alice)
    adapter_retire(tenant=alice.tenant, name="outline", now=NOW)
    with pytest.raises(AdapterRetired):
        adapters_resolve(tenant=alice.tenant, names=["outline"], version=version)
    add(alice, scale=2.0)
    assert adapters_resolve(tenant=alice.tenant, names=["outline"], version=version)


def test_another_tenants_adapter_can_not_be_retired(alice, bob, add):
    add(alice)
    with pytest.raises(AdapterNotFound):
        adapter_retire(tenant=bob.tenant, name="outline", now=NOW)


def test_uploads_at_once_get_numbers_of_their_own(alice, add):
    start = threading.Barrier(4)

    def upload(scale):
        start.wait()
        try:
            return add(alice, scale=scale).number
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(upload, [1.0, 2.0, 3.0, 4.0])) == [1, 2, 3, 4]


def test_the_file_of_a_retired_adapter_goes_and_its_charge_ends(alice, add):
    key = add(alice).storage_key
    adapter_retire(tenant=alice.tenant, name="outline", now=NOW)
    adapter_files_delete_retired(in_use=[], now=NOW)
    with pytest.raises(FileNotFoundError):
        store().get(key)
    assert StoredObject.objects.get(storage_key=key).deleted_at == NOW


def test_a_retired_adapter_stays_while_a_job_or_another_adapter_needs_its_file(alice, add):
    used, shared = add(alice, name="used", scale=2.0), add(alice, name="shared", scale=3.0)
    add(alice, name="twin", scale=3.0)
    for name in ("used", "shared"):
        adapter_retire(tenant=alice.tenant, name=name, now=NOW)
    adapter_files_delete_retired(in_use=[used.id], now=NOW)
    assert store().get(used.storage_key)
    assert store().get(shared.storage_key)


def test_a_retired_adapter_comes_back_with_its_next_upload(alice, add):
    first = add(alice)
    adapter_retire(tenant=alice.tenant, name="outline", now=NOW)
    adapter_files_delete_retired(in_use=[], now=NOW)
    assert add(alice) == first
    assert store().get(first.storage_key)
    lives = StoredObject.objects.filter(storage_key=first.storage_key).order_by("created_at", "deleted_at")
    assert [life.deleted_at for life in lives] == [NOW, None]
