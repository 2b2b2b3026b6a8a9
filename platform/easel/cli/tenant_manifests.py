"""The Kubernetes namespace of a tenant's own pool, as YAML: its limits, its network, its workers.

The worker is the shared pool's of `deploy/kubernetes/base/worker.yaml` in all but its Secret, where it may go and how
many there are; a test holds the two together.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from core.errors import DomainError
from easel.catalog.models import Pool

Manifest = dict[str, Any]


class CheckpointNotMounted(DomainError, code="checkpoint_not_mounted"):
    """The pool's checkpoint is not on the volume of weights.

    Put the checkpoint on the volume of weights, and name its path there.
    """


class _PlainDumper(yaml.SafeDumper):
    """Writes what occurs twice twice, without YAML's anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


NAME = "easel-worker"
_LABELS = {"app.kubernetes.io/part-of": "easel"}
_POD_LABELS = {**_LABELS, "app.kubernetes.io/name": NAME, "app.kubernetes.io/component": "worker"}
_FETCH_LABELS = {**_LABELS, "app.kubernetes.io/name": "easel-weights"}
_USER_ID = 10001
_METRICS_PORT = 8001
_MODELS = "/models"  # where pods mount the weights
_SLOTS = 8  # of a worker, as `inference.worker.config` has them
_PROMETHEUS = "http://prometheus-operated.monitoring.svc:9090"
_PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"]
_RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
_READY = {"httpGet": {"path": "/readyz", "port": "metrics"}, "timeoutSeconds": 5}
_ALIVE = {"httpGet": {"path": "/metrics", "port": "metrics"}, "timeoutSeconds": 10}
_TMP = {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108
_FETCH = """\
test -d "$EASEL_MODEL" && exit 0
hf download "$WEIGHTS" --local-dir "$EASEL_MODEL.part" &&
mv "$EASEL_MODEL.part" "$EASEL_MODEL"
"""


def tenant_manifests(
    *,
    pool: Pool,
    worker_env: Mapping[str, str],
    image: str,
    gpus: int,
    gpu_resource: str,
    weights: str,
    api_stores: bool,
) -> str:
    """YAML documents in the order to apply them.

    `worker_env` is the environment that `pool_workers.pool_worker` returns; it goes into the Secret, since it has
    Redis' password. At most `gpus` workers run, one per `gpu_resource`. `weights` is the hub repository that is
    fetched to EASEL_MODEL. With `api_stores` the API keeps the images, not a bucket, and workers may reach it.
    Raises `CheckpointNotMounted`.
    """
    model = worker_env["EASEL_MODEL"]
    if not model.startswith(f"{_MODELS}/"):
        raise CheckpointNotMounted(f"{model} is not under {_MODELS}, where pods find weights")
    documents = [
        _namespace(pool.namespace),
        _quota(gpus, gpu_resource),
        *_network(api_stores=api_stores),
        _named("v1", "Secret", NAME, type="Opaque", stringData=dict(worker_env)),
        _weights_claim(),
        _weights_job(image, weights, model),
        _worker(pool, image, gpu_resource),
        _scaled_object(pool, gpus),
    ]
    for document in documents[1:]:
        document["metadata"]["namespace"] = pool.namespace
    return yaml.dump_all(documents, Dumper=_PlainDumper, sort_keys=False, explicit_start=True)


def _named(api_version: str, kind: str, name: str, **rest: Any) -> Manifest:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "labels": {**_LABELS}}, **rest}


def _namespace(name: str) -> Manifest:
    made = _named("v1", "Namespace", name)
    for mode in ("enforce", "warn"):
        made["metadata"]["labels"][f"pod-security.kubernetes.io/{mode}"] = "restricted"
    return made


def _quota(gpus: int, gpu_resource: str) -> Manifest:
    hard = {
        f"requests.{gpu_resource}": str(gpus),
        # As many workers, one of them twice while it is replaced, and the Job.
        "pods": str(gpus + 2),
        "requests.cpu": str(2 * gpus + 2),
        "requests.memory": f"{12 * gpus + 4}Gi",
        "limits.memory": f"{16 * gpus + 8}Gi",
        "persistentvolumeclaims": "1",
        # Nobody outside reaches into the namespace.
        "services.loadbalancers": "0",
        "services.nodeports": "0",
    }
    return _named("v1", "ResourceQuota", "easel", spec={"hard": hard})


def _network(*, api_stores: bool) -> list[Manifest]:
    def policy(name: str, pods: Mapping[str, str], **rules: Any) -> Manifest:
        selector = {"matchLabels": {"app.kubernetes.io/name": pods["app.kubernetes.io/name"]}} if pods else {}
        types = [kind for kind in ("Ingress", "Egress") if kind.lower() in rules] or ["Ingress", "Egress"]
        spec = {"podSelector": selector, "policyTypes": types, **rules}
        return _named("networking.k8s.io/v1", "NetworkPolicy", name, spec=spec)

    def peer(namespace: str, **pods: str) -> Manifest:
        found: Manifest = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
        return {**found, "podSelector": {"matchLabels": pods}} if pods else found

    def ports(*numbers: int, protocol: str = "TCP") -> list[Manifest]:
        return [{"protocol": protocol, "port": number} for number in numbers]

    dns = {"to": [peer("kube-system", **{"k8s-app": "kube-dns"})], "ports": [*ports(53, protocol="UDP"), *ports(53)]}
    outside = {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": _PRIVATE}}], "ports": ports(443)}
    redis = {"to": [peer("easel-data")], "ports": ports(6379)}
    api = {"to": [peer("easel", **{"app.kubernetes.io/name": "easel-api"})], "ports": ports(8000)}
    scrape = {"from": [peer("monitoring", **{"app.kubernetes.io/name": "prometheus"})], "ports": ports(_METRICS_PORT)}
    return [
        policy("default-deny", {}),
        policy("worker", _POD_LABELS, egress=[dns, redis, api if api_stores else outside], ingress=[scrape]),
        policy("weights", _FETCH_LABELS, egress=[dns, outside]),
    ]


def _weights_claim() -> Manifest:
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "100Gi"}}}
    return _named("v1", "PersistentVolumeClaim", "easel-weights", spec=spec)


def _weights_job(image: str, weights: str, model: str) -> Manifest:
    env = {"WEIGHTS": weights, "EASEL_MODEL": model, "HF_HOME": "/tmp", "HF_HUB_OFFLINE": "0"}  # noqa: S108
    fetch = _container(
        "fetch",
        image,
        command=["sh", "-c", _FETCH],
        env=[{"name": name, "value": value} for name, value in env.items()],
        resources={"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "4Gi"}},
        volumeMounts=[{"name": "weights", "mountPath": _MODELS}, _TMP],
    )
    pod = {"restartPolicy": "OnFailure", **_pod(fetch)}
    template = {"metadata": {"labels": _FETCH_LABELS}, "spec": pod}
    spec = {"backoffLimit": 10, "ttlSecondsAfterFinished": 86400, "template": template}
    return _named("batch/v1", "Job", "easel-weights", spec=spec)


def _worker(pool: Pool, image: str, gpu_resource: str) -> Manifest:
    own = {
        "EASEL_GPU_CLASS": pool.gpu_class,
        "EASEL_METRICS_PORT": str(_METRICS_PORT),
        "EASEL_STOP_GRACE_SECONDS": "40",
        "EASEL_ADAPTER_CACHE_DIR": "/var/cache/easel",
        "EASEL_LOG_FORMAT": "json",
    }
    models = {"name": "weights", "mountPath": _MODELS, "readOnly": True}
    secret = [{"secretRef": {"name": NAME}}]
    wait = _container(
        "weights",
        image,
        command=["sh", "-c", 'until test -d "$EASEL_MODEL"; do echo "waiting for $EASEL_MODEL"; sleep 5; done'],
        envFrom=secret,
        resources={"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}},
        volumeMounts=[models],
    )
    worker = _container(
        "worker",
        image,
        env=[
            {"name": "EASEL_WORKER_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *({"name": name, "value": value} for name, value in own.items()),
        ],
        envFrom=secret,
        ports=[{"name": "metrics", "containerPort": _METRICS_PORT}],
        startupProbe={**_READY, "periodSeconds": 10, "failureThreshold": 90},
        readinessProbe={**_READY, "periodSeconds": 5},
        livenessProbe={**_ALIVE, "periodSeconds": 20, "failureThreshold": 6},
        resources={
            "requests": {"cpu": "2", "memory": "12Gi", gpu_resource: 1},
            "limits": {"cpu": "4", "memory": "16Gi", gpu_resource: 1},
        },
        volumeMounts=[models, {"name": "adapters", "mountPath": "/var/cache/easel"}, _TMP],
    )
    pod = {
        "terminationGracePeriodSeconds": 60,
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "initContainers": [wait],
        **_pod(worker),
    }
    pod["volumes"].append({"name": "adapters", "emptyDir": {"sizeLimit": "24Gi"}})
    spec = {
        # No `replicas`: they are KEDA's. No surge: the quota has no GPU to spare.
        "selector": {"matchLabels": {"app.kubernetes.io/name": NAME}},
        "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
        "template": {"metadata": {"labels": _POD_LABELS}, "spec": pod},
    }
    return _named("apps/v1", "Deployment", NAME, spec=spec)


def _container(name: str, image: str, **rest: Any) -> Manifest:
    return {"name": name, "image": image, "securityContext": _RESTRICTED, **rest}


def _pod(container: Manifest) -> Manifest:
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER_ID,
            "runAsGroup": _USER_ID,
            "fsGroup": _USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "weights", "persistentVolumeClaim": {"claimName": "easel-weights"}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "4Gi"}},
        ],
    }


def _scaled_object(pool: Pool, gpus: int) -> Manifest:
    def trigger(metric: str, threshold: int) -> Manifest:
        # Every replica of the API reports the same number from the database, hence `max`. A slug needs no quoting.
        query = f'max({metric}{{pool="{pool.slug}"}})'
        metadata = {"serverAddress": _PROMETHEUS, "query": query, "threshold": str(threshold)}
        return {"type": "prometheus", "metadata": metadata}

    spec = {
        "scaleTargetRef": {"name": NAME},
        "minReplicaCount": 0,
        "maxReplicaCount": gpus,
        "pollingInterval": 10,
        "cooldownPeriod": 300,
        "triggers": [trigger("easel_pending_generations", 2), trigger("easel_running_generations", _SLOTS)],
    }
    return _named("keda.sh/v1alpha1", "ScaledObject", NAME, spec=spec)
