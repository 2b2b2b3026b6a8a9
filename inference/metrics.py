"""What Prometheus reads from a worker.

`easel_gpu_busy_seconds_total`, summed over tenants, is the attributed time; `easel_gpu_device_seconds_total`
is what the device was measured to be busy. The two agree to 0.1 %.
"""

from prometheus_client import Counter, Gauge, Histogram, start_http_server

BUSY_SECONDS = Counter("easel_gpu_busy_seconds", "Device time attributed to a tenant", ["tenant"])
DEVICE_SECONDS = Counter("easel_gpu_device_seconds", "Device time measured as busy with rows")
LOAD_SECONDS = Counter("easel_gpu_load_seconds", "Device time of model load and warm-up, the pool's own")
IMAGES = Counter("easel_worker_images", "Images asked of this worker, by how they ended", ["outcome"])
STEP_SECONDS = Histogram(
    "easel_worker_step_seconds",
    "One denoising step of one batch",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
STEP_ROWS = Histogram("easel_worker_step_rows", "Images in one step", buckets=(1, 2, 3, 4, 6, 8, 12, 16, 32))
ROWS = Gauge("easel_worker_rows", "Images inside the engine", ["state"])
ADAPTER_LOADS = Counter("easel_worker_adapter_loads", "Adapters asked for, by where they were", ["source"])
ADAPTER_FETCH_SECONDS = Histogram(
    "easel_worker_adapter_fetch_seconds",
    "Download and check of one adapter",
    buckets=(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)

# At 0 from the start: a counter that appears with its first event doesn't show that event as an increase.
for outcome in ("succeeded", "failed", "canceled"):
    IMAGES.labels(outcome)
for source in ("memory", "disk", "storage"):
    ADAPTER_LOADS.labels(source)


def serve(port: int) -> int:
    """Serve `/metrics` from a thread; returns the port, which the system chose if `port` is 0."""
    server, _ = start_http_server(port)
    return int(server.server_port)
