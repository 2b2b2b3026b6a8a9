"""The processes of a running Easel, and the environment variables that each may see."""

import os
import socket
import sys
from collections.abc import Mapping
from typing import TypedDict

from easel_local.process import ProcessSpec

# The control plane's long-running processes besides the API; each is also a command of `easel`.
BACKGROUND = ("dispatcher", "completion", "scheduler")


class PoolWorker(TypedDict):
    """A worker to run, as `easel migrate --json` prints it: its pool's slug and its environment variables."""

    pool: str
    env: dict[str, str]


_WORKER_NAMES = frozenset(
    [
        *("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "XDG_CACHE_HOME", "LD_LIBRARY_PATH"),
        *("SSL_CERT_FILE", "REDIS_URL", "EASEL_POOL_NAMESPACE", "EASEL_MODEL", "EASEL_MODEL_VERSIONS"),
        *("EASEL_PRECISION", "EASEL_METRICS_PORT", "EASEL_LOG_FORMAT", "EASEL_STOP_GRACE_SECONDS"),
    ]
)
_WORKER_PREFIXES = (
    *("EASEL_WORKER_", "EASEL_TORCH_", "EASEL_ADAPTER_", "EASEL_STEP_", "EASEL_MERGED_", "EASEL_GPU_"),
    *("HF_", "CUDA", "NVIDIA_", "OMP_", "MKL_", "OPENBLAS_", "PYTORCH_", "TORCH_"),
)
_WORKER_STOP_GRACE_SECONDS = 12  # below the supervisor's, so that it hands back its work before it is killed


def control_plane(env: Mapping[str, str], *, port: int) -> list[ProcessSpec]:
    """Return the API on 127.0.0.1:`port` and its background processes."""
    api = ProcessSpec(name="api", argv=_easel("api", "--port", str(port)), env=env)
    return [api, *(ProcessSpec(name=name, argv=_easel(name), env=env) for name in BACKGROUND)]


def worker(env: Mapping[str, str], *, name: str, metrics_port: int) -> ProcessSpec:
    """Return a GPU worker of the pool whose variables are in `env`."""
    own = {"EASEL_METRICS_PORT": str(metrics_port), "EASEL_WORKER_NAME": f"{socket.gethostname()}-{name}"}
    return ProcessSpec(name=name, argv=worker_argv(), env={**worker_environment(env), **own})


def worker_argv() -> list[str]:
    # A program of its own, which we start and never import.
    return [sys.executable, "-m", "inference.worker"]


def worker_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a worker may see, by a list, so that a new secret of the control plane stays out."""
    passed = {name: value for name, value in env.items() if name in _WORKER_NAMES or name.startswith(_WORKER_PREFIXES)}
    defaults = {
        "EASEL_POOL_NAMESPACE": "easel-shared",
        "EASEL_ADAPTER_CACHE_DIR": os.path.join(env["EASEL_HOME"], "adapters"),
        "EASEL_STOP_GRACE_SECONDS": str(_WORKER_STOP_GRACE_SECONDS),
    }
    return {**defaults, **passed}


def _easel(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "easel.cli.main", *arguments]
