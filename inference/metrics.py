"""What Prometheus reads from a worker.

`easel_gpu_busy_seconds_total`, summed over tenants, is the attributed time; `easel_gpu_device_seconds_total`
is what the device was measured to be busy. The two agree to 0.1 %.
"""

import threading
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING

import pynvml
import structlog
from prometheus_client import Counter, Gauge, Histogram, MetricsHandler

if TYPE_CHECKING:
    from inference.engine import Step
    from inference.rows import Row

log = structlog.get_logger()

BUSY_SECONDS = Counter("easel_gpu_busy_seconds", "Device time attributed to a tenant", ["tenant"])
DEVICE_SECONDS = Counter("easel_gpu_device_seconds", "Device time measured as busy with rows")
LOAD_SECONDS = Counter("easel_gpu_load_seconds", "Device time of model load and warm-up, the pool's own")
IMAGES = Counter("easel_worker_images", "Images asked of this worker, by how they ended", ["outcome"])
ATTRIBUTION_DRIFT = Gauge("easel_gpu_attribution_drift_ratio", "Busy time that no row was charged for, over all")
_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
STEP_SECONDS = Histogram("easel_worker_step_seconds", "One denoising step of one batch", buckets=(0.005, *_SECONDS))
STEP_ROWS = Histogram("easel_worker_step_rows", "Images in one step", buckets=(1, 2, 3, 4, 6, 8, 12, 16, 32))
STEP_TOKENS = Histogram("easel_worker_step_tokens", "Tokens in one step", buckets=[2**i for i in range(6, 17)])
STEP_ADAPTERS = Histogram("easel_worker_step_adapters", "Distinct adapters in one step", buckets=(0, 1, 2, 4, 8, 16))
ROW_STEPS = Counter("easel_worker_row_steps", "Steps of single images, by the weights they took", ["weights"])
MERGES = Counter("easel_worker_merges", "Times that weights were merged with adapters")
SLOTS = Counter("easel_worker_adapter_slots", "Adapters asked for by images, by whether a slot held them", ["outcome"])
SLOT_LOAD_SECONDS = Histogram(
    "easel_worker_slot_load_seconds", "One adapter from memory to its slot", buckets=(0.001, 0.002, 0.005, *_SECONDS)
)
ROWS = Gauge("easel_worker_rows", "Images inside the engine", ["state"])
QUEUE_SECONDS = Histogram("easel_worker_queue_seconds", "From an image's arrival to its first work", buckets=_SECONDS)
FIRST_STEP_SECONDS = Histogram(
    "easel_worker_first_step_seconds", "From an image's arrival to the end of its first step", buckets=_SECONDS
)
IMAGE_SECONDS = Histogram("easel_worker_image_seconds", "From an image's arrival to its picture", buckets=_SECONDS)
ADAPTER_LOADS = Counter("easel_worker_adapter_loads", "Adapters asked for, by where they were", ["source"])
ADAPTER_FETCH_SECONDS = Histogram(
    "easel_worker_adapter_fetch_seconds", "Download and check of one adapter", buckets=_SECONDS
)
DEVICE_MEMORY = Gauge("easel_gpu_memory_bytes", "Memory of the device", ["state"])
DEVICE_UTILISATION = Gauge("easel_gpu_utilisation_ratio", "Share of the last second in which a kernel ran, by NVML")

# At 0 from the start: a counter that appears with its first event doesn't show that event as an increase.
for outcome in ("succeeded", "failed", "canceled", "expired"):
    IMAGES.labels(outcome)
for source in ("memory", "disk", "storage"):
    ADAPTER_LOADS.labels(source)
for weights in ("base", "unmerged", "merged"):
    ROW_STEPS.labels(weights)
for outcome in ("hit", "miss"):
    SLOTS.labels(outcome)


def observe_step(step: "Step") -> None:
    STEP_SECONDS.observe(step.seconds)
    STEP_ROWS.observe(len(step.rows))
    STEP_TOKENS.observe(step.tokens)
    STEP_ADAPTERS.observe(step.adapters)
    for row in step.rows:
        kind = "merged" if row.weights.merged is not None else "unmerged" if row.composition else "base"
        ROW_STEPS.labels(kind).inc()


def observe_end(row: "Row") -> None:
    if row.started_at is not None:
        QUEUE_SECONDS.observe(row.started_at - row.submitted_at)
    if row.first_step_at is not None:
        FIRST_STEP_SECONDS.observe(row.first_step_at - row.submitted_at)
    if row.finished_at is not None and not row.steps_left:
        IMAGE_SECONDS.observe(row.finished_at - row.submitted_at)


def watch_device(uuid: str) -> None:
    """Have the gauges of an NVIDIA device read NVML whenever they are scraped; without NVML there are none.

    By its UUID, as NVML numbers devices without regard to CUDA_VISIBLE_DEVICES.
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
    """Serve `/metrics`, and `/readyz` with 200 or 503, from a thread; returns the port, a free one if `port` is 0."""

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
