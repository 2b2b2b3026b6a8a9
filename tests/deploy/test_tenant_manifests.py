"""The namespace of a tenant's own pool."""

import uuid

import pytest
import yaml
from click.testing import CliRunner
from django.db import DatabaseError, transaction

from easel.catalog.models import Pool
from easel.cli.models import pool as pool_command
from easel.cli.tenant_manifests import CheckpointNotMounted
from easel.cli.tenants import tenant as tenant_command
from tenants.models import Tenant
from tests.conftest import NOW
from tests.deploy.conftest import KUBERNETES, TENANT_ENV, kustomized, named, of_kind, pod_of, tenant_yaml

HOSTILE = 'x: {y}\n---\nkind: "Pwned" # ü\t*a &b !!python/object:os.system'


def objects_of(**changes):
    return list(yaml.safe_load_all(tenant_yaml(**changes)))


@pytest.fixture
def dedicated(alice):
    """Alice's pool, for weights on the volume."""
    return Pool.objects.create(
        slug=alice.tenant.slug,
        namespace=f"easel-t-{alice.tenant.slug}",
        tenant=alice.tenant,
        checkpoint="/models/Z-Image-Turbo",
        gpu_class="nvidia-h100",
        created_at=NOW,
    )


def manifests(*arguments):
    return CliRunner().invoke(tenant_command, ["manifests", *arguments])


def test_the_command_prints_the_tenants_namespace_with_its_redis_user(alice, dedicated):
    done = manifests(alice.tenant.slug, "--image", "registry.example/worker:1", "--gpus", "3")
    assert done.exit_code == 0, done.output
    objects = list(yaml.safe_load_all(done.stdout))
    assert named(objects, "Namespace", dedicated.namespace)
    secret = named(objects, "Secret", "easel-worker")["stringData"]
    assert secret["REDIS_URL"].startswith(f"redis://{dedicated.namespace}:")
    assert (secret["EASEL_POOL_NAMESPACE"], secret["EASEL_MODEL"]) == (dedicated.namespace, "/models/Z-Image-Turbo")
    assert named(objects, "ScaledObject", "easel-worker")["spec"]["maxReplicaCount"] == 3
    assert done.stdout == manifests(alice.tenant.slug, "--image", "registry.example/worker:1", "--gpus", "3").stdout


def test_the_shared_pools_secret_has_the_names_that_the_workers_of_a_tenant_get(version):
    done = CliRunner().invoke(pool_command, ["environment", version.pool.slug])
    assert done.exit_code == 0, done.output
    given = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert given.keys() == TENANT_ENV.keys()
    assert given["EASEL_MODEL_VERSIONS"] == version.label
    assert given["REDIS_URL"].startswith(f"redis://{version.pool.namespace}:")


def test_a_tenant_without_a_pool_is_given_how_to_get_one(bob):
    refused = manifests(bob.tenant.slug, "--image", "registry.example/worker:1").exception
    assert (refused.code, "easel pool dedicate" in str(refused)) == ("pool_not_found", True)


def test_a_pool_whose_weights_are_elsewhere_is_refused():
    with pytest.raises(CheckpointNotMounted):
        tenant_yaml(worker_env={**TENANT_ENV, "EASEL_MODEL": "/modelsque/x"})


@pytest.mark.parametrize("slug", ["A", "a_b", "a.b", "-a", "a-", "", "a" * 41, "a\n", "ü", "a b", "kube:system"])
def test_a_slug_that_is_no_dns_label_cannot_exist(slug):
    with pytest.raises(DatabaseError), transaction.atomic():
        Tenant.objects.create(id=uuid.uuid4(), slug=slug, created_at=NOW)


@pytest.mark.parametrize("slug", ["a", "0", "a-b", "a" * 40])
def test_the_longest_and_the_shortest_slug_name_a_namespace(slug):
    pool = Pool(slug=slug, namespace=f"easel-t-{slug}", gpu_class="cpu")
    (namespace,) = of_kind(objects_of(pool=pool), "Namespace")
    assert len(namespace["metadata"]["name"]) <= 63


def test_hostile_text_stays_text():
    env = {**TENANT_ENV, "REDIS_URL": HOSTILE}
    objects = objects_of(worker_env=env, image=HOSTILE, weights=HOSTILE)
    assert len(objects) == len(objects_of())
    assert named(objects, "Secret", "easel-worker")["stringData"] == env
    assert pod_of(named(objects, "Deployment", "easel-worker"))["spec"]["containers"][0]["image"] == HOSTILE
    text = tenant_yaml(worker_env={**TENANT_ENV, "EASEL_MODEL_VERSIONS": "true", "EASEL_POOL_NAMESPACE": "1e3"})
    values = named(list(yaml.safe_load_all(text)), "Secret", "easel-worker")["stringData"].values()
    assert all(isinstance(value, str) for value in values)


@pytest.mark.parametrize("resource", ["nvidia.com/gpu", "nvidia.com/mig-1g.18gb"])
def test_the_quota_has_the_gpus_that_the_workers_may_take(resource):
    objects = objects_of(gpus=4, gpu_resource=resource)
    hard = named(objects, "ResourceQuota", "easel")["spec"]["hard"]
    container = pod_of(named(objects, "Deployment", "easel-worker"))["spec"]["containers"][0]
    assert hard[f"requests.{resource}"] == "4"
    assert named(objects, "ScaledObject", "easel-worker")["spec"]["maxReplicaCount"] == 4
    memory = int(container["resources"]["requests"]["memory"].removesuffix("Gi"))
    assert int(hard["requests.memory"].removesuffix("Gi")) >= 4 * memory


def test_workers_reach_the_api_only_where_it_keeps_the_images():
    def ports(**changes):
        policy = named(objects_of(**changes), "NetworkPolicy", "worker")
        return {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}

    assert ports(api_stores=True) == {53, 6379, 8000}
    assert ports(api_stores=False) == {53, 6379, 443}


def test_the_worker_is_that_of_the_shared_pool():
    shared = list(yaml.safe_load_all(kustomized(KUBERNETES / "overlays" / "production")))
    ours, theirs = (pod_of(named(found, "Deployment", "easel-worker"))["spec"] for found in (objects_of(), shared))
    for field in (
        "startupProbe",
        "readinessProbe",
        "livenessProbe",
        "resources",
        "securityContext",
        "volumeMounts",
        "ports",
        "envFrom",
    ):
        assert ours["containers"][0][field] == theirs["containers"][0][field], field
    values = [{entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]} for pod in (ours, theirs)]
    assert values[0] == {**values[1], "EASEL_GPU_CLASS": "nvidia-h100"}
    for field in ("securityContext", "tolerations", "terminationGracePeriodSeconds"):
        assert ours[field] == theirs[field], field
