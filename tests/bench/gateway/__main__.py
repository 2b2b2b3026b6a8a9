"""`make bench-gateway`: the cost of admitting and of dispatching a job, and the fairness of the queue.

Easel and the bare framework take turns in one run, and so do queues of different lengths. `name value` lines come last.
QUICK=1 ends within five minutes. PEER=1 installs LiteLLM into `var/peer` and measures it in turn with Easel, which adds
some minutes. RECORD=1 writes the figures into tests/bench/RESULTS.md.
"""

import os
import platform
import statistics
import time

import tests.conftest  # noqa: F401  PostgreSQL, Redis and Django, before any model is imported

# isort: split
from django.db import connection

from easel.catalog.models import ModelVersion
from tenants.quotas import quota_set
from tests.bench.gateway import dispatching, fixtures
from tests.bench.gateway.idle_start import start_ms
from tests.bench.gateway.peer import against_peer
from tests.bench.gateway.submissions import Load, listing, load, request, round_trips, serving
from tests.bench.gateway.waiting_clients import waiting
from tests.bench.report import Report, say
from tests.conftest import NOW


def admission(report: Report, *, rounds: int, seconds: float) -> None:
    version = fixtures.served_model()
    ours = [request("/v1/jobs", model=version.model.name, secret=owner.secret) for owner in fixtures.customers(50)]
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE bench_row (id uuid PRIMARY KEY, prompt text, at timestamptz DEFAULT now())")
    postgres, redis = trips(version)
    report.add("postgres_round_trips_per_job", postgres, target_max=2)
    report.add("redis_round_trips_per_job", redis, target_max=1)
    with serving("easel") as easel, serving("framework") as framework:
        systems = {
            "easel": (easel, ours),
            "bare": (framework, [request("/bare", model="m")]),
            "row": (framework, [request("/row", model="m")]),
        }
        for connections in (1, 16, 64, 256):
            found: dict[str, list[Load]] = {name: [] for name in systems}
            for turn in range(rounds + 1):
                for name, (server, requests) in systems.items():
                    measured = load(server, requests, connections=connections, seconds=seconds)
                    if turn:  # the first turn warms up
                        found[name].append(measured)
                        say(f"  {connections} connections, {name}: {measured}")
            admitted(report, connections, found)


def row_security(report: Report, *, rounds: int, seconds: float) -> None:
    """CPU time of an admitted job with row-level security over that without it."""
    version = fixtures.served_model()
    ours = [request("/v1/jobs", model=version.model.name, secret=owner.secret) for owner in fixtures.customers(50)]
    with serving("easel") as easel, serving("unscoped") as unscoped:
        pairs = []
        for turn in range(rounds + 1):
            pair = [load(server, ours, connections=16, seconds=seconds) for server in (easel, unscoped)]
            if turn:  # the first turn warms up
                pairs.append(pair)
                say(f"  row-level security: {pair[0]}; without: {pair[1]}")
    for name in ("cpu_ms", "database_cpu_ms", "total_cpu_ms"):
        ratios = [getattr(scoped, name) / getattr(bare, name) for scoped, bare in pairs]
        report.add(f"row_security_{name}_ratio", statistics.median(ratios), of=ratios)


def peer(report: Report, *, rounds: int) -> None:
    version = fixtures.served_model()
    ours = [request("/v1/jobs", model=version.model.name, secret=owner.secret) for owner in fixtures.customers(20)]
    against_peer(report, ours, rounds=rounds, seconds=20)


def trips(version: ModelVersion) -> tuple[float, float]:
    """Round trips of a tenant that has a rate limit, because admission asks Redis only then."""
    (owner,) = fixtures.customers(1)
    quota_set(tenant=owner.tenant, api_key=None, limits={"requests_per_minute": 10**6}, now=NOW)
    return round_trips([request("/v1/jobs", model=version.model.name, secret=owner.secret)])


def idle_clients(report: Report, *, clients: int, seconds: float) -> None:
    version = fixtures.served_model()
    owners = fixtures.customers(50)
    ours = [request("/v1/images/generations", model=version.model.name, secret=owner.secret) for owner in owners]
    jobs = [request("/v1/jobs", model=version.model.name, secret=owner.secret) for owner in owners]
    models = [listing("/v1/models", secret=owner.secret) for owner in owners]
    with serving("easel") as server:
        for warm in (jobs, models):  # starts the threads that the server has without waiting clients, too
            load(server, warm, connections=32, count=5)
        found = waiting(server, ours, clients=clients, seconds=seconds)
    report.add(f"threads_more_for_{clients}_waiting_clients", found.threads_more, target_max=4)
    report.add("kib_per_waiting_client", found.kib_each)
    report.add(f"cpu_percent_of_{clients}_waiting_clients", found.cpu_percent, target_max=10)


def idle_start(report: Report, *, rounds: int) -> None:
    with serving("easel") as server:
        ours, bare = start_ms(server, rounds=rounds)
    report.add("idle_start_ms_p50", statistics.median(ours))
    report.add("idle_start_ms_p50_vs_celery", statistics.median(ours) - statistics.median(bare), target_max=15)


def admitted(report: Report, connections: int, found: dict[str, list[Load]]) -> None:
    ours = found["easel"]
    report.add(f"jobs_per_s_{connections}", statistics.median(one.per_second for one in ours))
    for percent in (50, 95, 99):
        report.add(f"p{percent}_ms_{connections}", statistics.median(one.percentile_ms(percent) for one in ours))
    if connections == 16:
        report.add("cpu_ms_per_job", statistics.median(one.cpu_ms for one in ours), target_max=3.0)
        report.add("database_cpu_ms_per_job", statistics.median(one.database_cpu_ms for one in ours))
        for name, figure, target_max in (("bare", "vs_framework_only", 2.0), ("row", "vs_framework_and_a_row", None)):
            ratios = [one.cpu_ms / other.cpu_ms for one, other in zip(ours, found[name], strict=True)]
            report.add(figure, statistics.median(ratios), target_max=target_max, of=ratios)


def dispatch(report: Report, *, quick: bool) -> None:
    lengths = (1_000, 10_000, 100_000) if quick else (1_000, 10_000, 100_000, 1_000_000)
    costs = dispatching.release_ms(lengths, tenants=1_000 if not quick else 100, rounds=5 if quick else 20)
    for length, cost in zip(lengths, costs, strict=True):
        report.add(f"release_ms_per_job_{length}", cost)
    growth = "1k_to_1m" if lengths[-1] == 1_000_000 else "1k_to_100k"
    report.add(f"dispatch_cost_growth_{growth}", costs[-1] / costs[0], target_max=1.5)


def fairness(report: Report, *, quick: bool) -> None:
    gap, bound = dispatching.service_gap(tenants=8, concurrency=4, turns=80 if quick else 400)
    report.add("fairness_gap_vs_bound", gap / bound, target_max=1.0)
    flood = 500 if quick else 5_000
    unflooded = dispatching.trickle_waits(flood=0, others=20, each=3 if quick else 10, concurrency=8)
    flooded = dispatching.trickle_waits(flood=flood, others=20, each=3 if quick else 10, concurrency=8)
    p95 = [statistics.quantiles(waits, n=20)[-1] for waits in (unflooded, flooded)]
    report.add("trickle_p95_wait_beside_flood_vs_alone", p95[1] / p95[0])


def main() -> None:
    quick = bool(os.environ.get("QUICK"))
    begun = time.monotonic()
    report = Report()
    idle_start(report, rounds=20 if quick else 100)
    admission(report, rounds=1 if quick else 3, seconds=3 if quick else 4)
    if os.environ.get("PEER"):
        peer(report, rounds=1 if quick else 3)
    row_security(report, rounds=3 if quick else 9, seconds=3 if quick else 4)
    idle_clients(report, clients=500 if quick else 2_000, seconds=20)
    fairness(report, quick=quick)
    dispatch(report, quick=quick)
    device = f"{platform.machine()}, {os.cpu_count()} cores, clients on the same"
    command = f"make bench-gateway{' PEER=1' if os.environ.get('PEER') else ''}"
    report.publish("Gateway", command, device, seconds=time.monotonic() - begun, quick=quick)


if __name__ == "__main__":
    main()
