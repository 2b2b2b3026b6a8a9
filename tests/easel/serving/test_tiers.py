import uuid
from decimal import Decimal

import pytest
from click.testing import CliRunner

from billing.models import UsageRecord
from easel.catalog.errors import PoolExists, PoolHoldsOther
from easel.catalog.models import ModelVersion, PoolTier
from easel.catalog.pools import dedicated_pool_create, tier_pool_create
from easel.cli.models import pool as pool_command
from easel.seed import DEMO_LIMITS
from easel.serving.pool_workers import local_workers, pool_worker
from easel.serving.tiers import Quality, tier_of
from easel.serving.versions import version_register
from tests.conftest import NOW

SMALL, LARGE = "256x256", "512x512"  # of the demo's limits, whose fast tier ends at 256x256


@pytest.mark.parametrize(
    ("qualities", "small", "large"),
    [
        ("auto medium standard", "fast", "hd"),
        ("low", "fast", "fast"),
        ("high xhigh max hd", "hd", "hd"),
    ],
)
def test_quality_names_the_tier_or_leaves_it_to_the_size(qualities, small, large):
    version = ModelVersion(fast_image_units_max=Decimal("0.25"))
    for quality in qualities.split():
        tiers = [tier_of(version, quality=quality, image_units=Decimal(units)) for units in ("0.25", "0.26")]
        assert tiers == [small, large], quality


def tier_pool(version, tier):
    return tier_pool_create(
        name=f"{tier}-{uuid.uuid4().hex[:12]}", tier=tier, version=version, gpu_class="cpu", now=NOW
    )


@pytest.fixture
def fast(version):
    return tier_pool(version, PoolTier.FAST)


@pytest.fixture
def hd(version):
    return tier_pool(version, PoolTier.HD)


def test_requests_go_to_the_pool_of_their_tier(alice, submit, fast, hd):
    assert submit(alice, size=SMALL).pool == fast
    assert submit(alice, size=LARGE).pool == hd
    assert submit(alice, size=SMALL, quality="high").pool == hd


def test_a_tier_without_a_pool_is_served_by_the_versions_own(alice, submit, pool, fast):
    large = submit(alice, size=LARGE)
    assert (large.pool, large.tier) == (pool, "hd")


def test_a_job_says_the_tier_that_serves_it_when_that_is_another(alice, version, submit, hd):
    ModelVersion.objects.filter(pk=version.pk).update(pool=hd)
    job = submit(alice, quality="low")
    assert (job.quality, job.tier, job.pool) == ("low", "hd", hd)


def test_a_dedicated_pool_has_its_tenants_jobs_of_every_tier(alice, bob, version, submit, fast):
    own = dedicated_pool_create(tenant=alice.tenant, version=version, gpu_class="cpu", now=NOW)
    jobs = [submit(alice, size=SMALL), submit(alice, size=LARGE)]
    assert [(job.pool, job.tier) for job in jobs] == [(own, "fast"), (own, "hd")]
    assert submit(bob, size=SMALL).pool == fast


def test_a_tiers_pool_serves_every_version_of_its_weights_and_no_other(alice, version, second, submit, pool, fast):
    version.model.routes.update(version=second)
    assert submit(alice, size=SMALL).pool == fast
    ModelVersion.objects.filter(pk=second.pk).update(checkpoint="another")
    assert submit(alice, size=SMALL).pool == pool


def test_an_operator_makes_a_tiers_pool_by_a_command(alice, version, submit):
    name = f"lite-{uuid.uuid4().hex[:12]}"
    arguments = ["create", name, "--tier", "fast", "--model", version.model.name]
    done = CliRunner().invoke(pool_command, arguments)
    assert (done.exit_code, f"easel worker --pool {name}" in done.output) == (0, True)
    assert submit(alice, size=SMALL).pool.slug == name
    assert CliRunner().invoke(pool_command, ["create", "x", "--model", version.model.name]).exit_code == 2


def test_weights_have_one_pool_of_a_tier(version, fast, hd):
    with pytest.raises(PoolExists, match="of tier fast"):
        tier_pool(version, PoolTier.FAST)


def test_a_version_of_other_weights_is_not_put_into_a_tiers_pool(version, fast):
    with pytest.raises(PoolHoldsOther):
        version_register(
            model_name=version.model.name,
            checkpoint=version.checkpoint,
            precision="int8",
            pool=fast,
            limits=DEMO_LIMITS,
            now=NOW,
        )


def test_low_quality_is_half_of_the_steps_unless_the_request_names_them(alice, version, submit):
    assert submit(alice, quality="low").steps == version.steps_default // 2
    assert submit(alice, quality="low", steps=7).steps == 7
    assert {submit(alice, quality=q).steps for q in Quality.values if q != "low"} == {version.steps_default}


def test_usage_tells_the_tiers_apart(alice, submit, end):
    end(submit(alice, quality="low"))
    dimensions = UsageRecord.objects.filter(tenant=alice.tenant).first().dimensions
    assert (dimensions["quality"], dimensions["tier"]) == ("low", "fast")


def test_a_tiers_workers_get_its_weights_and_one_machine_runs_them_all(version, second, fast):
    env = pool_worker(fast)["env"]
    assert env["EASEL_MODEL"] == version.checkpoint
    assert env["EASEL_MODEL_VERSIONS"] == f"{version.label},{second.label}"
    assert fast.slug in {worker["pool"] for worker in local_workers()}
