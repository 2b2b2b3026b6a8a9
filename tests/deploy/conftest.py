"""What would be applied to a cluster, as objects."""

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from easel.catalog.models import Pool
from easel.cli.tenant_manifests import tenant_manifests

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
TENANT_ENV = {
    "EASEL_MODEL": "/models/Z-Image-Turbo",
    "EASEL_MODEL_VERSIONS": "z-image-turbo@1",
    "EASEL_PRECISION": "none",
    "EASEL_POOL_NAMESPACE": "easel-t-acme",
    "REDIS_URL": "redis://easel-t-acme:secret@redis.easel-data:6379/0",
}
Object = dict[str, Any]


def tenant_yaml(**changes: Any) -> str:
    """The manifests of the tenant acme."""
    pool = Pool(slug="acme", namespace="easel-t-acme", gpu_class="nvidia-h100")
    known = {
        "pool": pool,
        "worker_env": TENANT_ENV,
        "image": "registry.example/easel/worker:0.2.0",
        "gpus": 2,
        "gpu_resource": "nvidia.com/gpu",
        "weights": "Tongyi-MAI/Z-Image-Turbo",
        "api_stores": False,
    }
    return tenant_manifests(**{**known, **changes})


def needs(tool: str) -> str:
    """The tool's path. Without it the test is skipped, or fails where EASEL_TESTS_COMPLETE says that nothing may be."""
    found = shutil.which(tool)
    if found is None and os.environ.get("EASEL_TESTS_COMPLETE") == "1":
        pytest.fail(f"{tool} is not installed")
    if found is None:
        pytest.skip(f"{tool} is not installed")
    return found


@cache
def kustomized(folder: Path) -> str:
    done = subprocess.run([needs("kubectl"), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def with_mig(folder: Path) -> str:
    """The production overlay with the component for slices of GPUs."""
    base = os.path.relpath(KUBERNETES.resolve(), folder.resolve())
    lines = [f"resources: [{base}/overlays/production]", f"components: [{base}/components/mig]"]
    (folder / "kustomization.yaml").write_text("\n".join(lines))
    return kustomized(folder)


@pytest.fixture(scope="session")
def mig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mig")


@pytest.fixture(params=["production", "edge", "mig", "tenant"])
def manifests(request: pytest.FixtureRequest, mig: Path) -> str:
    """The YAML of everything that is applied in one go, for each of the ways to."""
    if request.param == "tenant":
        return tenant_yaml()
    if request.param == "mig":
        return with_mig(mig)
    return kustomized(KUBERNETES / "overlays" / request.param)


def parsed(text: str) -> list[Object]:
    return list(yaml.load_all(text, yaml.CSafeLoader))  # in C: the one in Python takes 0.2 s for an overlay


@pytest.fixture
def objects(manifests: str) -> list[Object]:
    return parsed(manifests)


@pytest.fixture
def overlay() -> Callable[[str], list[Object]]:
    """The objects of one overlay: `overlay("edge")`."""
    return lambda name: parsed(kustomized(KUBERNETES / "overlays" / name))


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    return [found for found in objects if found["kind"] in kinds]


def named(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [found for found in of_kind(objects, kind) if found["metadata"]["name"] == name]
    return found


def workloads(objects: list[Object]) -> list[Object]:
    return of_kind(objects, "Deployment", "Job")


def pod_of(workload: Object) -> Object:
    pod: Object = workload["spec"]["template"]
    return pod


def containers(objects: list[Object]) -> list[tuple[str, Object]]:
    """(workload/container, container) of all, the initial ones too."""
    return [
        (f"{workload['metadata']['name']}/{container['name']}", container)
        for workload in workloads(objects)
        for container in [
            *pod_of(workload)["spec"].get("initContainers", ()),
            *pod_of(workload)["spec"]["containers"],
        ]
    ]


def env_of(container: Object) -> dict[str, Object]:
    return {entry["name"]: entry for entry in container.get("env", ())}


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a label selector, as Kubernetes reads it, selects these labels."""
    for expression in selector.get("matchExpressions", ()):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
