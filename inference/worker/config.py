"""The worker's configuration: the only module here that reads the environment."""

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from inference.demo_model import CHECKPOINT_DIR
from inference.precision import Precision

LogFormat = Literal["json", "console"]
_GIB = 1024**3


class ConfigError(ValueError):
    """An environment variable is missing or bad; the message starts with its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """`gpu_class` "" means: name it after the device. `metrics_port` 0 means: any free port, logged."""

    model: str
    model_name: str
    model_versions: tuple[str, ...]
    redis_url: str
    namespace: str
    gpu_class: str
    worker_name: str
    slots: int
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
        """Raises `ConfigError` naming the first variable whose value can't be used."""
        model = env.get("EASEL_MODEL") or str(CHECKPOINT_DIR)
        model_name = "demo" if model == str(CHECKPOINT_DIR) else _model_name(model)
        home = Path(env.get("EASEL_HOME") or "var")
        return cls(
            model=model,
            model_name=model_name,
            # Versions differ by their defaults too: several may share the weights that this worker holds.
            model_versions=tuple((env.get("EASEL_MODEL_VERSIONS") or model_name).split(",")),
            redis_url=_redis_url(env, "REDIS_URL"),
            namespace=_slug(env, "EASEL_POOL_NAMESPACE", "easel-shared"),
            gpu_class=_slug(env, "EASEL_GPU_CLASS", ""),
            worker_name=env.get("EASEL_WORKER_NAME") or f"{socket.gethostname()}-{os.getpid()}",
            slots=_count(env, "EASEL_WORKER_SLOTS", 8),
            precision=_one_of(get_args(Precision), env, "EASEL_PRECISION", "none"),
            # A newcomer waits for the step that is under way; beyond this a larger batch gains little.
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
            # Half: beside one busy process, a thread per core waits for its siblings most of the time.
            torch_threads=_count(env, "EASEL_TORCH_THREADS", max(1, (os.cpu_count() or 2) // 2)),
            stop_grace_seconds=_count(env, "EASEL_STOP_GRACE_SECONDS", 25, low=0),
        )


def _model_name(model: str) -> str:
    return Path(model).resolve().name if Path(model).exists() else model


def _count(env: Mapping[str, str], name: str, default: int, *, low: int = 1, high: int = 2**63) -> int:
    text = env.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise ConfigError(f"{name}={text!r} is no whole number of at least {low}")
    return int(text)


def _slug(env: Mapping[str, str], name: str, default: str) -> str:
    text = env.get(name) or default
    if not all(char.isascii() and (char.isalnum() or char in "-_.") for char in text):
        raise ConfigError(f"{name}={text!r} may hold only letters, digits and '-', '_', '.'")
    return text


def _redis_url(env: Mapping[str, str], name: str) -> str:
    url = env.get(name, "")
    if not url.startswith(("redis://", "rediss://")):
        # The value itself stays out of the message: it may hold a password.
        raise ConfigError(f"{name} is required, as redis://... or rediss://...")
    return url


def _one_of(known: tuple[str, ...], env: Mapping[str, str], name: str, default: str) -> Any:
    text = env.get(name) or default
    if text not in known:
        raise ConfigError(f"{name}={text!r} is none of {', '.join(known)}")
    return text
