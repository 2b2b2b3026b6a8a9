"""Defines the control plane's Prometheus metrics. Of their labels, tenants can add only to the tenant slugs."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import REGISTRY, Collector
from redis.exceptions import RedisError

from billing.usage.queries import credit_by_tenant, gpu_seconds_by_tenant, ledger_imbalance, revenue_by_tenant
from core.redis_client import redis_fail_fast
from core.redis_version import redis_unpatched
from easel.catalog.models import Pool, PoolFault, Worker
from easel.catalog.workers import WORKER_SILENCE_SECONDS
from easel.jobs.models import FINAL
from easel.jobs.queries import jobs_by_pool, lost_attempts_by_pool, oldest_queued_by_pool, wasted_gpu_seconds
from easel.webhooks import queries

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
        info = [(pool.slug, pool.tier, pool.tenant.slug if pool.tenant else "", pool.gpu_class, 1) for pool in known]
        labels = ["pool", "tier", "tenant", "gpu_class"]
        yield _gauge("easel_pool_info", "1 for each pool, by its attributes.", labels, info)
        yield from _jobs(pools, now)
        yield from _faults(pools, now)
        yield from _redis()
        yield from _money()
        yield from _workers(pools, now)
        yield from _webhooks(now)

    def describe(self) -> list[Metric]:
        return []  # so that registering the collector does not query the database


def _family(kind: type[Any], name: str, text: str, labels: list[str], rows: Iterable[tuple[Any, ...]]) -> Metric:
    """Return a metric with one sample for each row, which has the labels' values and then the sample's."""
    family: GaugeMetricFamily | CounterMetricFamily = kind(name, text, labels=labels)
    for *values, sample in rows:
        family.add_metric(values, float(sample))
    return family


_gauge = partial(_family, GaugeMetricFamily)
_counter = partial(_family, CounterMetricFamily)


def _jobs(pools: list[str], now: datetime) -> Iterator[Metric]:
    counts = {(pool, state): count for pool, state, count in jobs_by_pool()}
    waiting_since, losses = oldest_queued_by_pool(), lost_attempts_by_pool()

    def by_pool(value: Callable[[str], float]) -> list[tuple[str, float]]:
        return [(pool, value(pool)) for pool in pools]

    def in_states(*states: str) -> list[tuple[str, float]]:
        return by_pool(lambda pool: sum(counts.get((pool, state), 0) for state in states))

    ages = by_pool(lambda pool: max(0.0, (now - waiting_since.get(pool, now)).total_seconds()))
    finished = [(pool, state, counts.get((pool, state), 0)) for pool in pools for state in FINAL]
    lost = by_pool(lambda pool: losses.get(pool, 0))
    wasted = "GPU seconds of attempts that did not succeed, billed to no tenant."
    running = in_states("dispatched", "running")
    yield _gauge(
        "easel_pending_generations", "Jobs in the queue, without those of batches.", ["pool"], in_states("queued")
    )
    yield _gauge("easel_oldest_pending_seconds", "Age of the oldest queued job; 0 if there is none.", ["pool"], ages)
    yield _gauge("easel_running_generations", "Jobs dispatched to workers or running.", ["pool"], running)
    yield _counter("easel_finished_generations", "Finished jobs, by final state.", ["pool", "state"], finished)
    yield _counter("easel_lost_attempts", "Attempts whose lease expired.", ["pool"], lost)
    yield _counter("easel_wasted_gpu_seconds", wasted, [], [(wasted_gpu_seconds(),)])


def _faults(pools: list[str], now: datetime) -> Iterator[Metric]:
    found = {(fault.pool.slug, fault.kind): fault for fault in PoolFault.objects.select_related("pool")}
    counts = [(*key, fault.count) for key, fault in found.items()]
    shut = {pool for (pool, _), fault in found.items() if fault.shut_until and fault.shut_until > now}
    yield _counter("easel_pool_faults", "What a pool's workers did wrong in Redis.", ["pool", "kind"], counts)
    off = "1 while a pool's login of Redis is off, since its workers took too much."
    yield _gauge("easel_pool_shut_out", off, ["pool"], [(pool, pool in shut) for pool in pools])


def _redis() -> Iterator[Metric]:
    with suppress(RedisError):
        server = cast(Any, redis_fail_fast().info("server"))
        unpatched = "1 if the Redis server has known faults that let a client run code on it."
        yield _gauge(
            "easel_redis_unpatched", unpatched, ["version"], [(server["redis_version"], bool(redis_unpatched(server)))]
        )


def _money() -> Iterator[Metric]:
    labels = ["tenant", "currency"]
    cost, credit = _in_units(revenue_by_tenant()), _in_units(credit_by_tenant())
    unbalanced = "Sum of all balances, in micro-units; it must be 0."
    yield _gauge("easel_cost_units", "Charged over all time, in units of the currency.", labels, cost)
    yield _gauge("easel_credit_units", "Available credit of a tenant, in units of the currency.", labels, credit)
    yield _gauge("easel_ledger_imbalance_micros", unbalanced, ["currency"], ledger_imbalance())
    yield _counter("easel_gpu_seconds", "GPU seconds billed.", ["tenant"], gpu_seconds_by_tenant())


def _in_units(rows: Iterable[tuple[str, str, int]]) -> list[tuple[str, str, float]]:
    return [(tenant, currency, micros / 1_000_000) for tenant, currency, micros in rows]


def _workers(pools: list[str], now: datetime) -> Iterator[Metric]:
    shown = list(Worker.objects.select_related("pool").filter(beat_at__gte=now - WORKER_SHOWN))
    silent_since = now - timedelta(seconds=WORKER_SILENCE_SECONDS)
    alive = [(pool, sum(w.pool.slug == pool and w.beat_at >= silent_since for w in shown)) for pool in pools]

    def by_worker(value: Callable[[Worker], float]) -> list[tuple[str, str, float]]:
        return [(worker.pool.slug, worker.name, value(worker)) for worker in shown]

    def drift(worker: Worker) -> float:
        difference = abs(worker.attributed_seconds - worker.busy_seconds)
        return difference / worker.busy_seconds if worker.busy_seconds else 0.0

    labels = ["pool", "worker"]
    busy, load = by_worker(lambda worker: worker.busy_seconds), by_worker(lambda worker: worker.load_seconds)
    drifted = "Busy time attributed to no image or to two, over busy time."
    yield _gauge("easel_workers", "Live workers.", ["pool"], alive)
    yield _gauge("easel_worker_busy_seconds", "Time that the device was busy.", labels, busy)
    yield _gauge("easel_worker_load_seconds", "Time to load and warm up the model.", labels, load)
    yield _gauge("easel_attribution_drift_ratio", drifted, labels, by_worker(drift))


def _webhooks(now: datetime) -> Iterator[Metric]:
    pending = "Deliveries that enabled webhooks have not received yet."
    overdue = "Age of the oldest delivery that is due; 0 if none is."
    attempts = "Attempts to deliver to webhooks, by outcome."
    yield _gauge("easel_webhook_pending", pending, [], [(queries.pending(),)])
    yield _gauge("easel_webhook_overdue_seconds", overdue, [], [(queries.overdue_seconds(now),)])
    yield _counter("easel_webhook_attempts", attempts, ["outcome"], queries.attempts_by_outcome().items())


REGISTRY.register(DatabaseState())
