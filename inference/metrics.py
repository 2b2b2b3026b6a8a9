"""Prometheus metrics of a worker, and the port that serves them.

`easel_gpu_busy_seconds_total`, summed over tenants, is the attributed time; `easel_gpu_device_seconds_total`
is the time that the device was measured to be busy. The two agree to 0.1 %.
"""

import threading
from collections.abc import Callable, Sequence
from http.server import ThreadingHTTPServer

import pynvml
import structlog
from prometheus_client import Counter, Gauge, Histogram, MetricsHandler

log = structlog.get_logger()

BUSY_SECONDS = Counter("easel_gpu_busy_seconds", "Device time attributed to a tenant", ["tenant"])
DEVICE_SECONDS = Counter("easel_gpu_device_seconds", "Device time measured as busy with images")
LOAD_SECONDS = Counter("easel_gpu_load_seconds", "Time of model load and warm-up, charged to the pool")
IMAGES = Counter("easel_worker_images", "Images requested of this worker, by outcome", ["outcome"])
ATTRIBUTION_DRIFT = Gauge("easel_gpu_attribution_drift_ratio", "Share of busy time that was charged to no image")
_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
STEP_SECONDS = Histogram("easel_worker_step_seconds", "One denoising step of one batch", buckets=(0.005, *_SECONDS))
STEP_ROWS = Histogram("easel_worker_step_rows", "Images in one step", buckets=(1, 2, 3, 4, 6, 8, 12, 16, 32))
STEP_TOKENS = Histogram("easel_worker_step_tokens", "Tokens in one step", buckets=[2**i for i in range(6, 17)])
STEP_ADAPTERS = Histogram("easel_worker_step_adapters", "Distinct adapters in one step", buckets=(0, 1, 2, 4, 8, 16))
ROW_STEPS = Counter("easel_worker_row_steps", "Steps of single images, by the weights used", ["weights"])
MERGES = Counter("easel_worker_merges", "Merges of adapters into a copy of the weights")
ADAPTER_SLOTS = Counter("easel_worker_adapter_slots", "Adapters requested by images: in a slot or not", ["outcome"])
ADAPTER_SLOT_LOAD_SECONDS = Histogram(
    "easel_worker_adapter_slot_load_seconds",
    "Copy of one adapter from memory to its adapter slot",
    buckets=(0.001, 0.002, 0.005, *_SECONDS),
)
ROWS = Gauge("easel_worker_rows", "Images inside the engine", ["state"])
QUEUE_SECONDS = Histogram("easel_worker_queue_seconds", "From an image's arrival to its first work", buckets=_SECONDS)
FIRST_STEP_SECONDS = Histogram(
    "easel_worker_first_step_seconds", "From an image's arrival to the end of its first step", buckets=_SECONDS
)
IMAGE_SECONDS = Histogram("easel_worker_image_seconds", "From an image's arrival to its picture", buckets=_SECONDS)
ADAPTER_LOADS = Counter("easel_worker_adapter_loads", "Adapters requested, by where they were found", ["source"])
ADAPTER_FETCH_SECONDS = Histogram(
    "easel_worker_adapter_fetch_seconds", "Download and check of one adapter", buckets=_SECONDS
)
DEVICE_MEMORY = Gauge("easel_gpu_memory_bytes", "Memory of the device", ["state"])
DEVICE_UTILISATION = Gauge("easel_gpu_utilisation_ratio", "Share of the last second in which a kernel ran, by NVML")

# Start at 0: a counter that appears with its first event does not show that event as an increase.
for outcome in ("succeeded", "failed", "canceled", "expired"):
    IMAGES.labels(outcome)
for source in ("memory", "disk", "storage"):
    ADAPTER_LOADS.labels(source)
for weights in ("base", "unmerged", "merged"):
    ROW_STEPS.labels(weights)
for outcome in ("hit", "miss"):
    ADAPTER_SLOTS.labels(outcome)


def observe_step(*, seconds: float, tokens: int, adapters: int, weights: Sequence[str]) -> None:
    """Record one step; `weights` holds base, unmerged or merged for each row."""
    STEP_SECONDS.observe(seconds)
    STEP_ROWS.observe(len(weights))
    STEP_TOKENS.observe(tokens)
    STEP_ADAPTERS.observe(adapters)
    for kind in weights:
        ROW_STEPS.labels(kind).inc()


def watch_device(uuid: str) -> None:
    """Let the gauges of an NVIDIA device read NVML at every scrape; without NVML they stay absent.

    The device is named by its UUID, because NVML numbers devices without regard to CUDA_VISIBLE_DEVICES.
    """
    try:
        pynvml.nvmlInit()
        device = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError as error:
        log.warning("nvml_unavailable", reason=str(error))
        return
    DEVICE_MEMORY.labels("used").set_function(lambda: pynvml.nvmlDeviceGetMemoryInfo(device).used)
    DEVICE_MEMORY.labels("total").set_function(lambda: pynvml.nvmlDeviceGetMemoryInfo(device).total)
    DEVICE_UTILISATION.set_function(lambda: pynvml.nvmlDeviceGetUtilizationRates(device).gpu / 100)


def serve(port: int, *, ready: Callable[[], bool]) -> int:
    """Serve `/metrics`, and `/readyz` with 200 or 503, in a thread; return the port, a free one if `port` is 0."""

    class Handler(MetricsHandler):
        def do_GET(self) -> None:  # noqa: N802
            if self.path != "/readyz":
                super().do_GET()
                return
            status, body = (200, b"ready\n") if ready() else (503, b"not ready\n")
            self.send_response(status)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("", port), Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server.server_port
