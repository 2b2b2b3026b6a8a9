"""The cost of releasing a job at different lengths of the queue, and the fairness between tenants."""

import heapq
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from random import Random
from uuid import UUID

from easel.catalog.models import Pool
from easel.jobs import dispatch, lifecycle
from easel.jobs.models import Attempt, Job
from inference.contract import AttemptFinished
from tests.bench.gateway import fixtures
from tests.bench.report import say
from tests.conftest import NOW, worker_beat

LEASE_SECONDS = 10**6


def release_ms(lengths: Sequence[int], *, tenants: int, rounds: int, room: int = 16) -> list[float]:
    """Milliseconds per released job for each length of the queue: medians of rounds in which the queues take turns."""
    owners = fixtures.customers(tenants)
    pools = []
    for length in lengths:
        version = fixtures.served_model()
        begun = time.perf_counter()
        fixtures.queue(owners, version, length)
        say(f"  {length} jobs of {tenants} tenants queued in {time.perf_counter() - begun:.1f} s")
        pools.append(version.pool)
    seconds: list[list[float]] = [[] for _ in pools]
    for turn in range(rounds + 1):
        for pool, found in zip(pools, seconds, strict=True):
            concurrency = room * (turn + 1)  # the jobs of earlier turns are still running
            lifecycle.beat(pool=pool, report=worker_beat(concurrency=concurrency), now=NOW, lease_seconds=LEASE_SECONDS)
            begun = time.perf_counter()
            released = dispatch.release(pool=pool, now=NOW, lease_seconds=LEASE_SECONDS)
            took = time.perf_counter() - begun
            if len(released) != room:
                raise RuntimeError(f"{len(released)} jobs were released, not {room}")
            if turn:
                found.append(took / room)
    return [1000 * statistics.median(found) for found in seconds]


class Shift:
    """A pool in simulated time: real dispatch and completion on PostgreSQL, but the images are not generated.

    A job takes its estimated time multiplied by a factor of its tenant that the dispatcher doesn't know.
    """

    def __init__(self, pool: Pool, *, concurrency: int, factors: dict[UUID, float]) -> None:
        self.pool, self.concurrency, self.factors = pool, concurrency, factors
        self.seconds = 0.0
        self.running: list[tuple[float, int, Attempt, float]] = []
        self.served: defaultdict[UUID, float] = defaultdict(float)
        self.finished_at: dict[UUID, float] = {}
        self._turns = 0

    def turn(self, *, until: float = math.inf) -> None:
        """Release jobs as far as there is room, then advance to the next end of an attempt, at most to `until`."""
        now = NOW + timedelta(seconds=self.seconds)
        lifecycle.beat(
            pool=self.pool, report=worker_beat(concurrency=self.concurrency), now=now, lease_seconds=LEASE_SECONDS
        )
        released = dispatch.release(pool=self.pool, now=now, lease_seconds=LEASE_SECONDS)
        jobs = Job.objects.in_bulk([attempt.job_id for attempt in released])
        for attempt in released:
            job = jobs[attempt.job_id]
            takes = job.width * job.height * job.steps * job.n / 1e6 * self.factors.get(job.tenant_id, 1.0)
            self._turns += 1
            heapq.heappush(self.running, (self.seconds + takes, self._turns, attempt, takes))
        if self.running and self.running[0][0] <= until:
            self._end(*heapq.heappop(self.running))
        elif until < math.inf:
            self.seconds = until

    def _end(self, ended_seconds: float, _turn: int, attempt: Attempt, took: float) -> None:
        self.seconds = ended_seconds
        report = AttemptFinished(
            attempt_token=str(attempt.token),
            worker="w1",
            gpu_class="cpu",
            outcome="failed",
            gpu_seconds=took,
            error_code="worker_error",
            steps_done=8,
        )
        lifecycle.finish(pool=self.pool, report=report, now=NOW + timedelta(seconds=ended_seconds), attempts_max=1)
        tenant_id = Job.objects.values_list("tenant_id", flat=True).get(id=attempt.job_id)
        self.served[tenant_id] += took
        self.finished_at[attempt.job_id] = ended_seconds


def service_gap(*, tenants: int, concurrency: int, turns: int) -> tuple[float, float]:
    """(largest difference of service between tenants that always have jobs waiting, its bound), in seconds.

    The bound of virtual-time counters is twice the work that may run at once (Sheng et al., OSDI 2024, theorem 4.4).
    A tenant's jobs take from half to four times their estimated time.
    """
    owners = fixtures.customers(tenants)
    version = fixtures.served_model()
    for owner in owners * (2 * turns // tenants):
        fixtures.submit(owner, version)
    rng = Random(1)
    factors = {owner.tenant.id: rng.uniform(0.5, 4.0) for owner in owners}
    shift = Shift(version.pool, concurrency=concurrency, factors=factors)
    largest = 0.0
    job_seconds = 256 * 256 * 8 / 1e6 * max(factors.values())
    for _ in range(turns):
        shift.turn()
        served = [shift.served[owner.tenant.id] for owner in owners]
        largest = max(largest, max(served) - min(served))
    return largest, 2 * concurrency * job_seconds


def trickle_waits(*, flood: int, others: int, each: int, concurrency: int) -> list[float]:
    """Seconds from submission to end of the jobs of tenants that submit now and then, behind a flood of another tenant.

    All of them together submit work for half of the pool.
    """
    owners = fixtures.customers(others)
    version = fixtures.served_model()
    (flooding,) = fixtures.customers(1)
    for _ in range(flood):
        fixtures.submit(flooding, version)
    shift = Shift(version.pool, concurrency=concurrency, factors={})
    job_seconds = 256 * 256 * 8 / 1e6
    every = 2 * job_seconds / concurrency
    rng = Random(2)
    arrivals = [(number * every + rng.uniform(0, every), owners[number % others]) for number in range(others * each)]
    submitted_at: dict[UUID, float] = {}
    for arrival, owner in arrivals:
        while shift.seconds < arrival:
            shift.turn(until=arrival)
        submitted_at[fixtures.submit(owner, version)] = arrival
    while not submitted_at.keys() <= shift.finished_at.keys():
        shift.turn()
    return [shift.finished_at[job_id] - submitted for job_id, submitted in submitted_at.items()]
