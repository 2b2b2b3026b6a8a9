"""The manifests: valid, consistent references, and least privilege."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import kubernetes_validate
import pytest
import redis
import yaml
from redis.backoff import NoBackoff
from redis.retry import Retry

from easel.config import Config
from easel.observability import health
from inference import metrics
from inference.worker.config import WorkerConfig
from tests.deploy.conftest import (
    KUBERNETES,
    TENANT_ENV,
    containers,
    env_of,
    named,
    of_kind,
    pod_of,
    selects,
    tenant_yaml,
    workloads,
)
from tests.easel.api.conftest import call

VERSION = "1.32"
CUSTOM_GROUPS = ("cert-manager.io/", "keda.sh/", "monitoring.coreos.com/")
# What the operator puts into Secrets by hand, as deploy/README.md says.
SECRETS = {
    "easel-control-plane": {
        *("DATABASE_URL", "REDIS_URL", "EASEL_SECRET_KEY"),
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    },
    "easel-worker": set(TENANT_ENV),
}


def is_custom(found):
    return found["apiVersion"].startswith(CUSTOM_GROUPS)


def test_every_built_in_object_is_strictly_valid(objects):
    checked = [found for found in objects if not is_custom(found)]
    for found in checked:
        kubernetes_validate.validate(found, VERSION, strict=True)
    assert len(checked) > 5


def test_every_object_is_valid_with_the_custom_ones(manifests, objects):
    schemas = os.environ.get("EASEL_K8S_SCHEMAS")
    if not schemas:
        skipped = sorted(f"{found['kind']}/{found['metadata']['name']}" for found in objects if is_custom(found))
        pytest.skip(f"EASEL_K8S_SCHEMAS names no folder of schemas; not validated: {', '.join(skipped)}")
    folder = Path(schemas)
    done = subprocess.run(
        [sys.executable, str(folder / "validate.py"), "--schemas", str(folder / "crds"), "--k8s-version", VERSION],
        input=manifests,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_unknown_field_is_an_error(objects):
    found = workloads(objects)[0]
    broken = {**found, "spec": {**found["spec"], "replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSION, strict=True)


def test_a_real_server_takes_every_object_twice(objects):
    """Objects of kinds that the server doesn't know are left out; the namespace is removed at the end."""
    kubeconfig = os.environ.get("EASEL_TEST_KUBECONFIG")
    if not kubeconfig:
        pytest.skip("EASEL_TEST_KUBECONFIG names no cluster")
    from kubernetes import config, dynamic

    client = dynamic.DynamicClient(config.new_client_from_config(kubeconfig))
    (namespace,) = of_kind(objects, "Namespace")
    applied = 0
    try:
        for found in [namespace, *objects, *objects]:
            try:
                api = client.resources.get(api_version=found["apiVersion"], kind=found["kind"])
            except dynamic.exceptions.ResourceNotFoundError:
                assert is_custom(found)
                continue
            about = found["metadata"]
            client.server_side_apply(
                api,
                body=found,
                name=about["name"],
                namespace=about.get("namespace"),
                field_manager="easel-tests",
                force_conflicts=True,
            )
            applied += 1
    finally:
        api = client.resources.get(api_version="v1", kind="Namespace")
        api.delete(name=namespace["metadata"]["name"])
    assert applied > 10


def test_selectors_select_their_own_pods_only(objects):
    deployments = of_kind(objects, "Deployment")
    for found in deployments:
        selected = [
            other["metadata"]["name"]
            for other in workloads(objects)
            if selects(found["spec"]["selector"], pod_of(other)["metadata"]["labels"])
        ]
        assert selected == [found["metadata"]["name"]]


def test_services_disruption_budgets_and_policies_select_existing_pods(objects):
    labels = [pod_of(found)["metadata"]["labels"] for found in workloads(objects)]
    for found in of_kind(objects, "Service", "PodDisruptionBudget", "NetworkPolicy"):
        spec = found["spec"]
        selector = {"Service": {"matchLabels": spec.get("selector")}}.get(found["kind"]) or (
            spec.get("podSelector") if found["kind"] == "NetworkPolicy" else spec["selector"]
        )
        if "acme.cert-manager.io/http01-solver" in selector.get("matchLabels", {}):
            continue  # cert-manager makes these
        assert any(selects(selector, pod) for pod in labels), found["metadata"]["name"]


def test_every_port_of_a_service_an_ingress_and_a_probe_exists(objects):
    ports = {port["name"]: port["containerPort"] for _, found in containers(objects) for port in found.get("ports", ())}
    for service in of_kind(objects, "Service"):
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in ports
    for ingress in of_kind(objects, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                service = named(objects, "Service", backend["name"])
                assert backend["port"]["name"] in [port["name"] for port in service["spec"]["ports"]]
    for name, found in containers(objects):
        own = [port["name"] for port in found.get("ports", ())]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if "httpGet" in found.get(probe, {}):
                assert found[probe]["httpGet"]["port"] in own, name


def test_prometheus_scrapes_ports_that_our_manifests_have(overlay):
    objects = overlay("production")
    monitor = named(objects, "ServiceMonitor", "easel-api")
    (service,) = [
        found
        for found in of_kind(objects, "Service")
        if selects(monitor["spec"]["selector"], found["metadata"]["labels"])
    ]
    assert monitor["spec"]["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]
    monitor = named(objects, "PodMonitor", "easel-worker")
    for pods in (objects, list(yaml.safe_load_all(tenant_yaml()))):
        (worker,) = [
            found
            for found in workloads(pods)
            if selects(monitor["spec"]["selector"], pod_of(found)["metadata"]["labels"])
        ]
        ports = [port["name"] for port in pod_of(worker)["spec"]["containers"][0]["ports"]]
        assert monitor["spec"]["podMetricsEndpoints"][0]["port"] in ports


def test_keda_scales_existing_deployments_without_a_fixed_number_of_replicas(objects):
    for scaled in of_kind(objects, "ScaledObject"):
        target = named(objects, "Deployment", scaled["spec"]["scaleTargetRef"]["name"])
        assert "replicas" not in target["spec"]


@pytest.mark.parametrize("pool", ["shared", "acme"])
def test_keda_reads_the_queue_of_the_pool_two_jobs_to_a_worker(overlay, pool):
    objects = overlay("production") if pool == "shared" else list(yaml.safe_load_all(tenant_yaml()))
    (scaled,) = of_kind(objects, "ScaledObject")
    queries = {trigger["metadata"].get("query"): trigger["metadata"] for trigger in scaled["spec"]["triggers"]}
    assert queries[f'max(easel_pending_generations{{pool="{pool}"}})']["threshold"] == "2"
    concurrency = WorkerConfig.from_env({"REDIS_URL": "redis://r"}).concurrency
    assert queries[f'max(easel_running_generations{{pool="{pool}"}})']["threshold"] == str(concurrency)
    assert scaled["spec"]["minReplicaCount"] == 0


def test_every_object_is_in_the_restricted_namespace(objects):
    (namespace,) = of_kind(objects, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    others = [found for found in objects if found is not namespace]
    assert {found["metadata"]["namespace"] for found in others} == {namespace["metadata"]["name"]}


def test_traffic_is_denied_unless_listed(objects):
    policy = named(objects, "NetworkPolicy", "default-deny")
    assert policy["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def reachable_ports(objects, workload_name):
    """Ports that a workload's pods may call, by its policies; DNS aside."""
    (workload,) = [found for found in workloads(objects) if found["metadata"]["name"] == workload_name]
    labels = pod_of(workload)["metadata"]["labels"]
    return {
        port["port"]
        for policy in of_kind(objects, "NetworkPolicy")
        if selects(policy["spec"]["podSelector"], labels)
        for rule in policy["spec"].get("egress", ())
        for port in rule["ports"]
    } - {53}


def test_a_worker_reaches_redis_and_image_storage_only(objects):
    stored = 8000 if "EASEL_STORAGE_URL: file" in yaml.safe_dump(of_kind(objects, "ConfigMap")) else 443
    assert reachable_ports(objects, "easel-worker") - {443} == {6379, stored} - {443}
    assert stored in reachable_ports(objects, "easel-worker")


@pytest.mark.parametrize(("name", "controller"), [("production", "ingress-nginx"), ("edge", "traefik")])
def test_from_outside_the_ingress_alone_reaches_the_api(overlay, name, controller):
    objects = overlay(name)
    labels = pod_of(named(objects, "Deployment", "easel-api"))["metadata"]["labels"]
    sources = [
        peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
        for policy in of_kind(objects, "NetworkPolicy")
        if selects(policy["spec"]["podSelector"], labels)
        for rule in policy["spec"].get("ingress", ())
        for peer in rule["from"]
    ]
    assert set(sources) - {"prometheus", "easel-worker"} == {controller}
    assert set(sources) <= {controller, "prometheus" if name == "production" else "easel-worker"}


def test_the_ingress_routes_the_tenants_paths_over_tls_and_neither_metrics_nor_admin(overlay):
    for name in ("production", "edge"):
        ingress = named(overlay(name), "Ingress", "easel")
        (rule,) = ingress["spec"]["rules"]
        paths = {path["path"] for path in rule["http"]["paths"]}
        assert paths == {"/v1"} | ({"/storage"} if name == "edge" else set())
        assert rule["host"] in ingress["spec"]["tls"][0]["hosts"]
        assert named(overlay(name), "Issuer", ingress["metadata"]["annotations"]["cert-manager.io/issuer"])


def test_the_admin_portal_is_reached_from_private_addresses_only(overlay):
    ingress = named(overlay("production"), "Ingress", "easel-admin")
    ranges = ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/whitelist-source-range"].split(",")
    assert all(found.startswith(("10.", "192.168.")) for found in ranges)


def test_the_ingress_has_the_apis_limits_of_time_and_size(overlay):
    annotations = named(overlay("production"), "Ingress", "easel")["metadata"]["annotations"]
    config = Config.from_env({"EASEL_SECRET_KEY": "x", "DATABASE_URL": "x", "REDIS_URL": "x"})
    assert int(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > config.request_wait_seconds
    body = annotations["nginx.ingress.kubernetes.io/proxy-body-size"]
    assert int(body.removesuffix("m")) * 2**20 >= config.adapter_bytes_max + 2**16


def test_containers_have_least_privilege(objects):
    for name, found in containers(objects):
        context = found["securityContext"]
        assert context["readOnlyRootFilesystem"], name
        assert not context["allowPrivilegeEscalation"], name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
    for found in workloads(objects):
        pod = pod_of(found)["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False


def test_every_container_has_resource_requests(objects):
    for name, found in containers(objects):
        for bound in ("requests", "limits"):
            assert {"cpu", "memory"} <= found["resources"][bound].keys(), name


def test_every_long_running_container_has_a_liveness_probe(objects):
    for found in of_kind(objects, "Deployment"):
        for container in pod_of(found)["spec"]["containers"]:
            assert "livenessProbe" in container, found["metadata"]["name"]


def test_a_worker_has_one_gpu_or_one_slice_of_one(request, objects):
    worker = pod_of(named(objects, "Deployment", "easel-worker"))["spec"]["containers"][0]["resources"]
    wanted = "nvidia.com/mig-1g.18gb" if "mig" in request.node.callspec.id else "nvidia.com/gpu"
    for bound in ("requests", "limits"):
        assert {name: count for name, count in worker[bound].items() if "/" in name} == {wanted: 1}
    assert (worker["requests"]["memory"], worker["limits"]["memory"]) == ("12Gi", "16Gi")
    assert (worker["requests"]["cpu"], worker["limits"]["cpu"]) == ("2", "4")


def test_a_worker_has_no_secret_of_the_control_plane(objects):
    pod = pod_of(named(objects, "Deployment", "easel-worker"))["spec"]
    for container in [*pod["initContainers"], *pod["containers"]]:
        assert [source["secretRef"]["name"] for source in container.get("envFrom", ())] in ([], ["easel-worker"])
        assert not {"DATABASE_URL", "EASEL_SECRET_KEY"} & env_of(container).keys()
        for entry in env_of(container).values():
            assert "secretKeyRef" not in entry.get("valueFrom", {}) or (
                entry["valueFrom"]["secretKeyRef"]["name"] == "easel-worker"
            )


def test_a_worker_starts_with_the_variables_it_is_given(objects):
    container = pod_of(named(objects, "Deployment", "easel-worker"))["spec"]["containers"][0]
    given = {name: entry.get("value", "x") for name, entry in env_of(container).items()}
    config = WorkerConfig.from_env({**given, **TENANT_ENV})
    assert config.metrics_port == container["ports"][0]["containerPort"]
    pod = pod_of(named(objects, "Deployment", "easel-worker"))["spec"]
    assert pod["terminationGracePeriodSeconds"] > config.stop_grace_seconds + 10
    sizes = {volume["name"]: volume.get("emptyDir", {}).get("sizeLimit") for volume in pod["volumes"]}
    assert int(sizes["adapters"].removesuffix("Gi")) * 2**30 > config.adapter_cache_bytes


def test_the_control_plane_starts_with_the_variables_it_is_given(overlay):
    for name in ("production", "edge"):
        (given,) = of_kind(overlay(name), "ConfigMap")
        config = Config.from_env({**given["data"], **dict.fromkeys(SECRETS["easel-control-plane"], "x")})
        assert config.public_url.startswith("https://")
        assert config.internal_url == "http://easel-api.easel.svc:8000"
        assert config.storage_url.startswith("s3://" if name == "production" else "file:///var/lib/easel/")


def test_images_are_pinned(objects):
    for name, found in containers(objects):
        image, _, tag = found["image"].rpartition(":")
        assert image.startswith("registry.example/easel/"), name
        assert tag not in ("", "latest"), name


def test_no_secret_is_committed():
    assert "kind: Secret" not in "\n".join(path.read_text() for path in KUBERNETES.rglob("*.yaml"))


def test_the_readme_creates_every_secret_that_is_used(objects):
    readme = (KUBERNETES.parent / "README.md").read_text()
    used = {
        source["secretRef"]["name"]
        for _, found in containers(objects)
        for source in found.get("envFrom", ())
        if "secretRef" in source
    }
    assert used <= SECRETS.keys()
    for name in used - {"easel-worker"}:
        assert f"generic {name}" in readme
        assert all(variable in readme for variable in SECRETS[name])


def test_volumes_are_claimed_and_mounted(objects):
    claims = {found["metadata"]["name"] for found in of_kind(objects, "PersistentVolumeClaim")}
    for found in workloads(objects):
        pod = pod_of(found)["spec"]
        volumes = {volume["name"]: volume for volume in pod.get("volumes", ())}
        mounted = {mount["name"] for _, c in containers([found]) for mount in c.get("volumeMounts", ())}
        assert mounted == volumes.keys(), found["metadata"]["name"]
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims


def test_production_survives_the_loss_of_a_pod(overlay):
    objects = overlay("production")
    replicas = {found["metadata"]["name"]: found["spec"].get("replicas") for found in of_kind(objects, "Deployment")}
    del replicas["easel-worker"]
    assert all(count >= 2 for count in replicas.values())
    assert named(objects, "PodDisruptionBudget", "easel-api")["spec"]["maxUnavailable"] == 1
    assert named(objects, "Deployment", "easel-api")["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_the_edge_is_k3s_with_one_of_each(overlay):
    objects = overlay("edge")
    assert {found["spec"]["replicas"] for found in of_kind(objects, "Deployment")} == {1}
    assert named(objects, "Ingress", "easel")["spec"]["ingressClassName"] == "traefik"
    classes = {found["spec"]["storageClassName"] for found in of_kind(objects, "PersistentVolumeClaim")}
    assert classes == {"local-path"}
    assert not of_kind(objects, "ScaledObject", "ServiceMonitor", "PodMonitor")


# What the containers run, run here.


def test_the_control_planes_pods_wait_until_the_database_is_migrated(overlay):
    pod = pod_of(named(overlay("production"), "Deployment", "easel-api"))["spec"]
    (schema,) = pod["initContainers"]
    assert run(schema["command"]) == 0
    empty = os.environ["DATABASE_URL"].replace("/easel", "/template1", 1)
    assert empty != os.environ["DATABASE_URL"]
    assert run(schema["command"], DATABASE_URL=empty) == 1


def run(command, **env):
    argv = [sys.executable if command[0] == "python" else command[0], *command[1:]]
    return subprocess.run(argv, env={**os.environ, **env}, capture_output=True, check=False).returncode


def test_an_api_starts_once_its_servers_are_up_and_answers_when_one_is_down(overlay, monkeypatch):
    container = pod_of(named(overlay("production"), "Deployment", "easel-api"))["spec"]["containers"][0]
    probes = [container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert [call("GET", path).status_code for path in probes] == [200, 200, 200]
    monkeypatch.setattr(health, "redis_fail_fast", lambda: redis.Redis(port=1, retry=Retry(NoBackoff(), 0)))
    assert [call("GET", path).status_code for path in probes] == [503, 200, 200]


def test_a_worker_is_started_and_ready_by_its_own_probe(objects):
    container = pod_of(named(objects, "Deployment", "easel-worker"))["spec"]["containers"][0]
    ready = threading.Event()
    base = f"http://127.0.0.1:{metrics.serve(0, ready=ready.is_set)}"
    paths = [container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe")]
    assert [httpx.get(base + path).status_code for path in paths] == [503, 503]
    assert httpx.get(base + container["livenessProbe"]["httpGet"]["path"]).status_code == 200
    ready.set()
    assert [httpx.get(base + path).status_code for path in paths] == [200, 200]


def test_a_process_whose_loop_hangs_fails_its_liveness_probe(overlay, tmp_path):
    container = pod_of(named(overlay("production"), "Deployment", "easel-dispatcher"))["spec"]["containers"][0]
    file = tmp_path / "alive"
    probe = [
        word.replace(env_of(container)["EASEL_ALIVE_FILE"]["value"], str(file))
        for word in (container["livenessProbe"]["exec"]["command"])
    ]
    assert run(probe) == 1
    file.touch()
    assert run(probe) == 0
    long_ago = time.time() - 600
    os.utime(file, (long_ago, long_ago))
    assert run(probe) == 1


def test_the_weights_appear_complete_or_not_at_all(objects, tmp_path):
    job = named(objects, "Job", "easel-weights")
    command = pod_of(job)["spec"]["containers"][0]["command"]
    hub = tmp_path / "hf"
    model = tmp_path / "models" / "Z-Image-Turbo"
    model.parent.mkdir()
    # A fake hub: writes half of a file, then fails a given number of times.
    hub.write_text(
        '#!/bin/sh\nwhile [ "$1" != --local-dir ]; do shift; done\nmkdir -p "$2"; echo x >> "$2/calls"\n[ ! -e fail ]\n'
    )
    hub.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "EASEL_MODEL": str(model), "WEIGHTS": "a/b", "REVISION": "main"}

    def fetch():
        return subprocess.run(command, cwd=tmp_path, env=env, check=False).returncode

    (tmp_path / "fail").touch()
    assert (fetch(), model.exists()) == (1, False)
    (tmp_path / "fail").unlink()
    assert (fetch(), model.exists()) == (0, True)
    assert fetch() == 0
    assert (model / "calls").read_text() == "x\nx\n"
