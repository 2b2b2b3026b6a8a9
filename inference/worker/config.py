"""The worker's configuration: the only module here that reads the environment."""

import os
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from inference.precision import Precision

LogFormat = Literal["json", "console"]
_GIB = 1024**3
# Located without an import: the demo model is not part of a worker's installation.
_DEMO_CHECKPOINT = Path(__file__).resolve().parents[1] / "demo_model" / "checkpoint"


class ConfigError(ValueError):
    """An environment variable is missing or bad; the message starts with its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """The settings of one worker. An empty `gpu_class` means the device's name, `metrics_port` 0 any free port."""

    model: str
    model_name: str
    model_versions: tuple[str, ...]
    redis_url: str
    namespace: str
    gpu_class: str
    worker_name: str
    concurrency: int
    precision: Precision
    step_ms_max: int
    adapter_slots: int
    adapter_rank_max: int
    merged_bytes: int
    metrics_port: int
    adapter_cache_dir: Path
    adapter_cache_bytes: int
    adapter_memory_bytes: int
    log_format: LogFormat
    torch_threads: int
    stop_grace_seconds: int

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read the environment. Raises `ConfigError` naming the first variable with a bad value."""
        model = env.get("EASEL_MODEL") or _demo_model()
        model_name = Path(model).resolve().name if Path(model).exists() else model
        if model == str(_DEMO_CHECKPOINT):
            model_name = "demo"
        home = Path(env.get("EASEL_HOME") or "var")
        return cls(
            model=model,
            model_name=model_name,
            # Several versions may share this worker's weights, because versions also differ by their defaults.
            model_versions=tuple((env.get("EASEL_MODEL_VERSIONS") or model_name).split(",")),
            redis_url=_redis_url(env, "REDIS_URL"),
            namespace=_slug(env, "EASEL_POOL_NAMESPACE", "easel-shared"),
            gpu_class=_slug(env, "EASEL_GPU_CLASS", ""),
            worker_name=_name(env, "EASEL_WORKER_NAME", f"{socket.gethostname()}-{os.getpid()}"),
            concurrency=_count(env, "EASEL_WORKER_CONCURRENCY", 8),
            precision=_one_of(get_args(Precision), env, "EASEL_PRECISION", "none"),
            # A new image waits for the step that runs; with steps longer than this, batches gain little.
            step_ms_max=_count(env, "EASEL_STEP_MS_MAX", 100),
            adapter_slots=_count(env, "EASEL_ADAPTER_SLOTS", 16),
            adapter_rank_max=_count(env, "EASEL_ADAPTER_RANK_MAX", 128),
            merged_bytes=_count(env, "EASEL_MERGED_BYTES", 2 * _GIB, low=0),
            metrics_port=_count(env, "EASEL_METRICS_PORT", 0, low=0, high=65_535),
            adapter_cache_dir=Path(env.get("EASEL_ADAPTER_CACHE_DIR") or home / "adapters"),
            adapter_cache_bytes=_count(env, "EASEL_ADAPTER_CACHE_BYTES", 20 * _GIB),
            adapter_memory_bytes=_count(env, "EASEL_ADAPTER_MEMORY_BYTES", 4 * _GIB),
            log_format=_one_of(
                get_args(LogFormat), env, "EASEL_LOG_FORMAT", "console" if sys.stdout.isatty() else "json"
            ),
            # Half of the cores: with one per core, beside another busy process, threads mostly wait for each other.
            torch_threads=_count(env, "EASEL_TORCH_THREADS", max(1, (os.cpu_count() or 2) // 2)),
            stop_grace_seconds=_count(env, "EASEL_STOP_GRACE_SECONDS", 25, low=0),
        )


def _demo_model() -> str:
    if not _DEMO_CHECKPOINT.is_dir():
        raise ConfigError("EASEL_MODEL is required: a folder or a hub id (the demo model is not installed here)")
    return str(_DEMO_CHECKPOINT)


def _count(env: Mapping[str, str], name: str, default: int, *, low: int = 1, high: int = 2**63) -> int:
    text = env.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise ConfigError(f"{name}={text!r} must be a whole number of at least {low}")
    return int(text)


def _slug(env: Mapping[str, str], name: str, default: str) -> str:
    text = env.get(name) or default
    if not all(char.isascii() and (char.isalnum() or char in "-_.") for char in text):
        raise ConfigError(f"{name}={text!r} may contain only letters, digits and '-', '_', '.'")
    return text


def _name(env: Mapping[str, str], name: str, default: str) -> str:
    text = env.get(name) or default
    if not re.fullmatch(r"[ !#-\[\]-~]{1,100}", text):  # the control plane refuses the reports of any other
        raise ConfigError(f"{name}={text!r} must have 1 to 100 characters of ASCII, without quotes and backslashes")
    return text


def _redis_url(env: Mapping[str, str], name: str) -> str:
    url = env.get(name, "")
    if not url.startswith(("redis://", "rediss://")):
        # The message omits the value, which may contain a password.
        raise ConfigError(f"{name} is required: redis://... or rediss://...")
    return url


def _one_of(known: tuple[str, ...], env: Mapping[str, str], name: str, default: str) -> Any:
    text = env.get(name) or default
    if text not in known:
        raise ConfigError(f"{name}={text!r} must be one of {', '.join(known)}")
    return text
