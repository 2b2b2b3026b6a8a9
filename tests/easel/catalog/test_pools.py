import uuid
from decimal import Decimal

import pytest
from django.db import IntegrityError

from easel.catalog.errors import PoolExists, PoolHoldsOther, PoolNameInvalid
from easel.catalog.models import ModelVersion, Pool
from easel.catalog.pools import dedicated_pool_create, shared_pool_create
from easel.seed import DEMO_LIMITS
from easel.serving.pool_workers import pool_worker
from easel.serving.versions import version_register
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


@pytest.fixture
def quantised(version):
    """A version of the same weights in eight bits, with a pool of its own."""
    pool = shared_pool_create(name=f"int8-{uuid.uuid4().hex[:12]}", gpu_class="cpu", gpu_hour_cost=Decimal(0), now=NOW)
    return registered(version, precision="int8", pool=pool)


def registered(like, **changes):
    fields = {"checkpoint": like.checkpoint, "pool": like.pool, "limits": DEMO_LIMITS, "now": NOW, **changes}
    return version_register(model_name=like.model.name, **fields)


def test_a_quantised_version_is_a_version_of_its_own(version, quantised):
    assert (quantised.number, quantised.precision, version.precision) == (version.number + 1, "int8", "none")
    assert registered(version, precision="int8", pool=quantised.pool) == quantised


def test_a_pool_holds_weights_at_one_precision(version):
    with pytest.raises(PoolHoldsOther, match="easel pool create"):
        registered(version, precision="fp8")
    assert not ModelVersion.objects.filter(precision="fp8").exists()


def test_a_precision_that_no_worker_knows_is_refused_by_the_database(version):
    with pytest.raises(IntegrityError, match="precision_known"):
        ModelVersion.objects.filter(pk=version.pk).update(precision="int4")


def test_workers_are_configured_with_their_precision_and_versions(version, quantised):
    envs = {pool: pool_worker(pool)["env"] for pool in (version.pool, quantised.pool)}
    assert [env["EASEL_PRECISION"] for env in envs.values()] == ["none", "int8"]
    assert [env["EASEL_MODEL_VERSIONS"] for env in envs.values()] == [version.label, quantised.label]


def test_jobs_of_a_quantised_version_leave_a_dedicated_pool_of_full_precision(alice, dedicated, quantised, submit):
    assert submit(alice).pool == dedicated
    quantised.model.routes.update(version=quantised)
    assert submit(alice).pool == quantised.pool


@pytest.mark.parametrize("name", ["", "Fast", "t-acme", "a b", "x" * 41])
def test_a_pools_name_is_a_dns_label_and_no_tenants_namespace(name):
    with pytest.raises(PoolNameInvalid):
        shared_pool_create(name=name, gpu_class="cpu", gpu_hour_cost=Decimal(0), now=NOW)


def test_a_pools_name_is_its_own(version):
    with pytest.raises(PoolExists):
        shared_pool_create(name=version.pool.slug, gpu_class="cpu", gpu_hour_cost=Decimal(0), now=NOW)
    assert Pool.objects.filter(slug=version.pool.slug).count() == 1
