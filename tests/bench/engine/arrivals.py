"""Latency of images that arrive one by one: at random times, and beside a tenant that floods."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from inference.model import LoadedModel
from inference.openmp import run_in_fresh_thread
from tests.bench.engine.systems import Diffusers, OneByOne, Ours, Tables
from tests.bench.engine.workload import Ask, asks
from tests.bench.report import Report, say

LOAD = 0.6  # of what diffusers with adapters loaded for each image does in this run


def poisson(
    report: Report,
    systems: Mapping[str, Ours | Diffusers],
    tables: Tables,
    *,
    per_second: float,
    count: int,
    rounds: int,
) -> None:
    """Latency of `count` images in each round, which all systems get at the same times: p50 and p95 over all rounds.

    A ratio is theirs over ours.
    """
    found: dict[str, list[list[float]]] = {name: [] for name in systems}
    for seed in range(rounds):
        work = asks(count, adapters=len(tables), per_second=per_second, seed=1000 + seed)
        for name, system in systems.items():
            found[name].append(run_in_fresh_thread(partial(system.run, work, tables)).latencies)
        said = ", ".join(f"{name} {p(latencies[-1], 95):.2f}" for name, latencies in found.items())
        say(f"  poisson round {seed + 1} of {rounds}, p95 in s: {said}")
    report.add("poisson_images_per_s", per_second)
    pooled = {name: [seconds for latencies in each for seconds in latencies] for name, each in found.items()}
    for q in (50, 95):
        for name, latencies in pooled.items():
            report.add(f"poisson_p{q}_s_{name}", p(latencies, q))
        for name in list(systems)[1:]:
            ratios = [p(theirs, q) / p(ours, q) for theirs, ours in zip(found[name], found["ours"], strict=True)]
            report.add(f"poisson_p{q}_speedup_vs_{name}", p(pooled[name], q) / p(pooled["ours"], q), of=ratios)


def flooded(report: Report, model: LoadedModel, tables: Tables, *, count: int, flood: int) -> None:
    """Measure the p95 latency of occasional requests beside a tenant that requests `flood` images at once.

    It is reported as a multiple of their p95 without that tenant, for the engine and for first come, first served.
    """
    others = [
        replace(ask, tenant=f"tenant{i % 4}", px=min(ask.px, 256))
        for i, ask in enumerate(asks(count, adapters=len(tables), per_second=1.0, seed=7))
    ]
    rng = random.Random(8)
    burst = [Ask(0.0, "flood", "a red circle", 256, 500 + i, rng.randrange(len(tables))) for i in range(flood)]
    for name, system in (("ours", Ours(model)), ("fifo", Ours(model, OneByOne))):
        quiet = run_in_fresh_thread(partial(system.run, others, tables)).latencies
        beside = run_in_fresh_thread(partial(system.run, [*burst, *others], tables)).latencies[flood:]
        report.add(f"others_p95_s_{name}", p(quiet, 95))
        report.add(f"others_p95_s_beside_flood_{name}", p(beside, 95))
        report.add(f"flood_slows_others_p95_{name}", p(beside, 95) / p(quiet, 95))


def p(latencies: Sequence[float], q: int) -> float:
    return float(np.percentile(latencies, q))
