"""The control plane's Prometheus metrics. Tenant slugs are the only labels that tenants can add to."""

from collections.abc import Iterator

from prometheus_client import Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import REGISTRY, Collector

from billing.queries import gpu_seconds_by_tenant, revenue_by_tenant
from easel.generation.models import FINAL
from easel.generation.queries import jobs_by_pool, wasted_gpu_seconds
from easel.registry.models import Pool, Worker

REQUESTS = Counter("easel_http_requests_total", "Requests answered.", ["method", "route", "status"])
REQUEST_SECONDS = Histogram(
    "easel_http_request_seconds",
    "Time to answer, with the wait for the image where the call waits.",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)


class DatabaseState(Collector):
    """What the database knows, read when scraped: the same from every replica, right after a restart."""

    def collect(self) -> Iterator[Metric]:
        pending = GaugeMetricFamily("easel_pending_generations", "Jobs waiting for a slot.", labels=["pool"])
        running = GaugeMetricFamily("easel_running_generations", "Jobs in workers' hands.", labels=["pool"])
        finished = CounterMetricFamily("easel_finished_generations", "Jobs ended, by how.", labels=["pool", "state"])
        counts = {(pool, state): count for pool, state, count in jobs_by_pool()}
        for pool in Pool.objects.values_list("slug", flat=True):
            pending.add_metric([pool], counts.get((pool, "queued"), 0))
            running.add_metric([pool], counts.get((pool, "dispatched"), 0) + counts.get((pool, "running"), 0))
            for state in FINAL:
                finished.add_metric([pool, state], counts.get((pool, state), 0))
        cost = GaugeMetricFamily(
            "easel_cost_units",
            "Charged since the beginning, in units of the currency.",
            labels=["tenant", "currency"],
        )
        for tenant, currency, micros in revenue_by_tenant():
            cost.add_metric([tenant, currency], micros / 1_000_000)
        used = CounterMetricFamily("easel_gpu_seconds", "GPU seconds billed.", labels=["tenant"])
        for tenant, seconds in gpu_seconds_by_tenant():
            used.add_metric([tenant], float(seconds))
        wasted = CounterMetricFamily("easel_wasted_gpu_seconds", "Of attempts that made nothing: billed to nobody.")
        wasted.add_metric([], wasted_gpu_seconds())
        busy = GaugeMetricFamily("easel_worker_busy_seconds", "Device time worked.", labels=["pool", "worker"])
        load = GaugeMetricFamily(
            "easel_worker_load_seconds", "Time to load and warm up the model.", labels=["pool", "worker"]
        )
        for worker in Worker.objects.select_related("pool"):
            busy.add_metric([worker.pool.slug, worker.name], worker.busy_seconds)
            load.add_metric([worker.pool.slug, worker.name], worker.load_seconds)
        yield from (pending, running, finished, cost, used, wasted, busy, load)

    def describe(self) -> list[Metric]:
        return []  # so that registering asks nothing of the database


REGISTRY.register(DatabaseState())
