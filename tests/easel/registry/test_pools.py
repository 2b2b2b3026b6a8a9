import pytest

from easel.registry.errors import PoolExists
from easel.registry.pools import dedicated_pool_create
from tests.conftest import NOW


@pytest.fixture
def dedicated(alice, version):
    return dedicated_pool_create(tenant=alice.tenant, version=version, gpu_class="cpu", now=NOW)


def test_its_owners_jobs_go_to_a_dedicated_pool_and_others_do_not(alice, bob, dedicated, pool, submit):
    assert submit(alice).pool == dedicated
    assert submit(bob).pool == pool


def test_it_has_the_tenants_namespace(alice, dedicated):
    assert (dedicated.slug, dedicated.namespace) == (alice.tenant.slug, f"easel-t-{alice.tenant.slug}")


def test_a_version_of_other_weights_stays_in_its_own_pool(alice, version, dedicated, pool, submit):
    dedicated.checkpoint = "another"
    dedicated.save()
    assert submit(alice).pool == pool


def test_a_tenant_has_one(alice, version, dedicated):
    with pytest.raises(PoolExists):
        dedicated_pool_create(tenant=alice.tenant, version=version, gpu_class="cpu", now=NOW)
