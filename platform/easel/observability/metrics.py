"""Defines the control plane's Prometheus metrics. Of their labels, tenants can add only to the tenant slugs."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import REGISTRY, Collector

from billing.usage.queries import credit_by_tenant, gpu_seconds_by_tenant, ledger_imbalance, revenue_by_tenant
from easel.catalog.models import Pool, Worker
from easel.jobs.models import FINAL
from easel.jobs.queries import jobs_by_pool, lost_attempts_by_pool, oldest_queued_by_pool, wasted_gpu_seconds
from easel.jobs.queue import WORKER_SILENCE_SECONDS
from easel.webhooks.queries import attempts_by_outcome as webhook_attempts_by_outcome
from easel.webhooks.queries import overdue_seconds as webhooks_overdue_seconds
from easel.webhooks.queries import pending as webhooks_pending

REQUESTS = Counter("easel_http_requests_total", "Requests answered.", ["method", "route", "status"])
WAITING_CLIENTS = Gauge("easel_waiting_clients", "Clients that wait for a job, by a call or a stream.")
REQUEST_SECONDS = Histogram(
    "easel_http_request_seconds",
    "Time to answer, including the wait for the image if the call waits for it.",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)


# How long a worker is shown after its last beat. The series of restarted workers would accumulate.
WORKER_SHOWN = timedelta(hours=1)


class DatabaseState(Collector):
    """Metrics read from the database at each scrape: every replica shows the same, even right after a restart."""

    def collect(self) -> Iterator[Metric]:
        now = datetime.now(UTC)
        known = list(Pool.objects.select_related("tenant"))
        pools = [pool.slug for pool in known]
        info = GaugeMetricFamily(
            "easel_pool_info", "1 for each pool, by its attributes.", labels=["pool", "tier", "tenant", "gpu_class"]
        )
        for pool in known:
            info.add_metric([pool.slug, pool.tier, pool.tenant.slug if pool.tenant else "", pool.gpu_class], 1)
        yield info
        yield from _jobs(pools, now)
        yield from _money()
        yield from _workers(pools, now)
        yield from _webhooks(now)

    def describe(self) -> list[Metric]:
        return []  # so that registering the collector does not query the database


def _jobs(pools: list[str], now: datetime) -> Iterator[Metric]:
    pending = GaugeMetricFamily("easel_pending_generations", "Jobs in the queue.", labels=["pool"])
    oldest = GaugeMetricFamily(
        "easel_oldest_pending_seconds", "Age of the oldest queued job; 0 if there is none.", labels=["pool"]
    )
    running = GaugeMetricFamily("easel_running_generations", "Jobs dispatched to workers or running.", labels=["pool"])
    finished = CounterMetricFamily(
        "easel_finished_generations", "Finished jobs, by final state.", labels=["pool", "state"]
    )
    lost = CounterMetricFamily("easel_lost_attempts", "Attempts whose lease expired.", labels=["pool"])
    counts = {(pool, state): count for pool, state, count in jobs_by_pool()}
    waiting_since, losses = oldest_queued_by_pool(), lost_attempts_by_pool()
    for pool in pools:
        pending.add_metric([pool], counts.get((pool, "queued"), 0))
        oldest.add_metric([pool], max(0.0, (now - waiting_since.get(pool, now)).total_seconds()))
        running.add_metric([pool], counts.get((pool, "dispatched"), 0) + counts.get((pool, "running"), 0))
        lost.add_metric([pool], losses.get(pool, 0))
        for state in FINAL:
            finished.add_metric([pool, state], counts.get((pool, state), 0))
    wasted = CounterMetricFamily(
        "easel_wasted_gpu_seconds", "GPU seconds of attempts that did not succeed, billed to no tenant."
    )
    wasted.add_metric([], wasted_gpu_seconds())
    yield from (pending, oldest, running, finished, lost, wasted)


def _money() -> Iterator[Metric]:
    cost = GaugeMetricFamily(
        "easel_cost_units", "Charged over all time, in units of the currency.", labels=["tenant", "currency"]
    )
    for tenant, currency, micros in revenue_by_tenant():
        cost.add_metric([tenant, currency], micros / 1_000_000)
    credit = GaugeMetricFamily(
        "easel_credit_units", "Available credit of a tenant, in units of the currency.", labels=["tenant", "currency"]
    )
    for tenant, currency, micros in credit_by_tenant():
        credit.add_metric([tenant, currency], micros / 1_000_000)
    imbalance = GaugeMetricFamily(
        "easel_ledger_imbalance_micros", "Sum of all balances, in micro-units; it must be 0.", labels=["currency"]
    )
    for currency, micros in ledger_imbalance():
        imbalance.add_metric([currency], micros)
    used = CounterMetricFamily("easel_gpu_seconds", "GPU seconds billed.", labels=["tenant"])
    for tenant, seconds in gpu_seconds_by_tenant():
        used.add_metric([tenant], float(seconds))
    yield from (cost, credit, imbalance, used)


def _workers(pools: list[str], now: datetime) -> Iterator[Metric]:
    labels = ["pool", "worker"]
    alive = GaugeMetricFamily("easel_workers", "Live workers.", labels=["pool"])
    busy = GaugeMetricFamily("easel_worker_busy_seconds", "Time that the device was busy.", labels=labels)
    load = GaugeMetricFamily("easel_worker_load_seconds", "Time to load and warm up the model.", labels=labels)
    drift = GaugeMetricFamily(
        "easel_attribution_drift_ratio", "Busy time attributed to no image or to two, over busy time.", labels=labels
    )
    shown = list(Worker.objects.select_related("pool").filter(beat_at__gte=now - WORKER_SHOWN))
    silent_since = now - timedelta(seconds=WORKER_SILENCE_SECONDS)
    for pool in pools:
        alive.add_metric([pool], sum(w.pool.slug == pool and w.beat_at >= silent_since for w in shown))
    for worker in shown:
        names = [worker.pool.slug, worker.name]
        busy.add_metric(names, worker.busy_seconds)
        load.add_metric(names, worker.load_seconds)
        difference = abs(worker.attributed_seconds - worker.busy_seconds)
        drift.add_metric(names, difference / worker.busy_seconds if worker.busy_seconds else 0.0)
    yield from (alive, busy, load, drift)


def _webhooks(now: datetime) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "easel_webhook_pending", "Deliveries that enabled webhooks have not received yet.", value=webhooks_pending()
    )
    yield GaugeMetricFamily(
        "easel_webhook_overdue_seconds",
        "Age of the oldest delivery that is due; 0 if none is.",
        value=webhooks_overdue_seconds(now),
    )
    attempts = CounterMetricFamily(
        "easel_webhook_attempts", "Attempts to deliver to webhooks, by outcome.", labels=["outcome"]
    )
    for outcome, count in webhook_attempts_by_outcome().items():
        attempts.add_metric([outcome], count)
    yield attempts


REGISTRY.register(DatabaseState())
