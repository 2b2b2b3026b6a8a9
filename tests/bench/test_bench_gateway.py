"""Every part of the gateway benchmark runs at a tiny scale and measures what it names."""

import psutil

from tenants.quotas import quota_set
from tests.bench.gateway import dispatching, fixtures
from tests.bench.gateway.peer import null_backend
from tests.bench.gateway.submissions import Server, load, request, round_trips, serving
from tests.bench.report import Report
from tests.conftest import NOW


def test_releases_are_timed_at_each_length_of_the_queue():
    costs = dispatching.release_ms([20, 40], tenants=10, rounds=1, room=4)
    assert len(costs) == 2
    assert all(cost > 0 for cost in costs)


def test_the_gap_of_service_keeps_its_bound():
    gap, bound = dispatching.service_gap(tenants=3, concurrency=2, turns=12)
    assert 0 < gap <= bound


def test_a_flood_does_not_keep_others_waiting_for_its_end():
    unflooded = dispatching.trickle_waits(flood=0, others=3, each=1, concurrency=2)
    flooded = dispatching.trickle_waits(flood=30, others=3, each=1, concurrency=2)
    assert max(flooded) < 5 * max(unflooded)


def test_a_job_costs_two_round_trips_to_postgresql_and_one_to_redis():
    version, (owner,) = fixtures.served_model(), fixtures.customers(1)
    quota_set(tenant=owner.tenant, api_key=None, limits={"requests_per_minute": 10**6}, now=NOW)
    assert round_trips([request("/v1/jobs", model=version.model.name, secret=owner.secret)]) == (2, 1)


def test_clients_are_answered_and_the_servers_time_is_counted():
    version, (owner,) = fixtures.served_model(), fixtures.customers(1)
    with serving("easel") as server:
        measured = load(
            server,
            [request("/v1/jobs", model=version.model.name, secret=owner.secret)],
            connections=2,
            seconds=0.5,
        )
    assert measured.per_second > 0
    assert measured.cpu_ms > 0


def test_the_peers_image_model_answers_at_once():
    with null_backend() as port:
        server = Server(port, psutil.Process(), None)
        measured = load(server, [request("/v1/images/generations", model="image")], connections=2, count=3)
    assert len(measured.latencies) == 6
    assert measured.database_cpu_ms == 0


def test_a_report_states_the_speed_of_the_machine(capsys):
    Report().publish("Nothing", "true", "a machine", seconds=0, quick=False)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("machine_python_loop_ms ")]
    assert float(line.split()[1]) > 0
