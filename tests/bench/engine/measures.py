"""Measurements of our engine alone."""

import random
import resource
import statistics
import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np
from prometheus_client import REGISTRY

from inference.adapter_linear import RowAdapters
from inference.errors import Canceled
from inference.model import LoadedModel
from inference.rows import ImageRequest
from tests.bench.engine.systems import OneByOne, Ours, Tables
from tests.bench.engine.workload import STEPS

_PROMPT = "a red circle"


def median_ratio(times: list[float], baseline: list[float]) -> float:
    """Return the median ratio of successive pairs: if the machine's speed changes, only neighbours are comparable."""
    return statistics.median(time / base for time, base in zip(times, baseline, strict=True))


def small_behind_large(
    model: LoadedModel, tables: Tables, *, trials: int, large_px: int, small_px: int = 128
) -> tuple[float, float]:
    """Latency in seconds, p95, of a small image that comes while eight large ones run: first come first served to the
    end, and ours."""

    def p95(system: Ours) -> float:
        rng = random.Random(0)
        latencies = []
        for trial in range(trials):
            with system.engine() as engine:
                large = [engine.submit(_request(large_px, i, tables, tenant="large")) for i in range(8)]
                while not large[0].steps_done:
                    time.sleep(0.001)
                time.sleep(rng.random() * 0.1)
                small = engine.submit(_request(small_px, 100 + trial, tables, tenant="large"))
                small.result()
                assert small.finished_at is not None
                latencies.append(small.finished_at - small.submitted_at)
                for row in large:
                    row.cancel()
        return float(np.percentile(latencies, 95))

    return p95(Ours(model, OneByOne)), p95(Ours(model))


def join_delay(model: LoadedModel, tables: Tables, *, trials: int) -> float:
    """Measure the time from an image's arrival to the start of its first step, in steps of the running rows.

    The image's tenant has nothing else running.
    """

    def steps() -> tuple[float, float]:
        sample = REGISTRY.get_sample_value
        return sample("easel_worker_step_seconds_sum") or 0.0, sample("easel_worker_step_seconds_count") or 0.0

    delays = []
    for trial in range(trials):
        with Ours(model).engine() as engine:
            running = [engine.submit(_request(256, i, tables, tenant="busy")) for i in range(16)]
            while not running[0].steps_done:
                time.sleep(0.001)
            seconds, count = steps()
            time.sleep(0.3)
            newcomer = engine.submit(_request(256, 100 + trial, tables, tenant="new"))
            while newcomer.first_step_at is None:
                time.sleep(0.001)
            seconds, count = (after - before for after, before in zip(steps(), (seconds, count), strict=True))
            delays.append((newcomer.first_step_at - newcomer.submitted_at) / (seconds / count) - 1)
            for row in (*running, newcomer):
                row.cancel()
    return statistics.median(delays)


def adapter_tax(model: LoadedModel, tables: Tables, *, rows: int, px: int, rounds: int) -> tuple[float, float]:
    """Extra time of a step with a distinct adapter on every row, in % of one with none: unmerged, and as the engine
    chooses, with its share of the merges."""
    latents = [model.initial_latents(seed, px, px) for seed in range(rows)]
    (caption,) = model.encode([model.prompt_ids(_PROMPT)])
    sequences = [model.sequence(caption, px, px, RowAdapters())] * rows
    for slot in range(rows):
        model.load(slot, tables[slot])

    def step(adapters: list[RowAdapters]) -> Callable[[], None]:
        def run() -> None:
            model.velocity(latents, [0.5] * rows, sequences, adapters)
            model.synchronize()

        return run

    kinds = {
        "none": step([RowAdapters()] * rows),
        "unmerged": step([RowAdapters(((slot, 1.0),)) for slot in range(rows)]),
        "merged": step([RowAdapters(merged=merged_slot % max(1, model.merged_slots)) for merged_slot in range(rows)]),
        "merge": lambda: model.merge(0, ((0, 1.0),)),
    }
    for merged_slot in range(min(rows, model.merged_slots)):
        model.merge(merged_slot, ((merged_slot, 1.0),))
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind, run in kinds.items():  # in turn: what slows the machine slows all of them
            begun = time.perf_counter()
            run()
            times[kind].append(time.perf_counter() - begun)
    unmerged = median_ratio(times["unmerged"], times["none"]) - 1
    merged = median_ratio(times["merged"], times["none"]) - 1
    merged += rows / STEPS * median_ratio(times["merge"], times["none"])
    tokens = model.step_tokens(px, px, len(caption))
    merges = model.costs.merging_pays(token_steps=tokens * STEPS, steps=STEPS)
    return 100 * unmerged, 100 * (merged if merges else unmerged)


def adapter_slot_load(model: LoadedModel, tables: Tables) -> float:
    """Return the median milliseconds of a copy of one adapter from memory into its adapter slot."""
    times = []
    for number in range(8):
        begun = time.perf_counter()
        model.load(number, tables[number])
        model.synchronize()
        times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times)


def soak(model: LoadedModel, tables: Tables, *, joins: int) -> tuple[float, float]:
    """Join, leave, swap and cancel at random: growth of the process's peak memory in % between the first fifth and
    the end, and the largest difference in a sample of pictures to the same generated alone, of 255."""
    rng = random.Random(1)
    largest, peak_early = 0.0, 0
    sample = []
    with Ours(model).engine() as engine:
        flying = []
        for i in range(joins):
            steps, px = rng.randint(1, 3), rng.choice((32, 48, 64, 96))
            request = _request(px, i, tables, tenant=f"t{rng.randrange(5)}", steps=steps, adapter=rng.randrange(40))
            row = engine.submit(request)
            flying.append(row)
            if rng.random() < 0.2:
                rng.choice(flying).cancel()
            elif rng.random() < 0.02:
                sample.append(row)
            while len(flying) > 24:
                with suppress(Canceled):
                    flying.pop(0).result()
            if i == joins // 5:
                peak_early = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for row in flying:
            row.wait()
    growth = 100 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / peak_early - 1)
    with Ours(model).engine() as engine:
        for row in sample:
            if row.future.exception() is None:
                by_itself = engine.submit(row.request).result()
                difference = np.abs(np.asarray(by_itself, np.int16) - np.asarray(row.result(), np.int16)).max()
                largest = max(largest, float(difference))
    return growth, largest


def _request(px: int, seed: int, tables: Tables, *, tenant: str, steps: int = STEPS, adapter: int = 0) -> ImageRequest:
    return ImageRequest(
        prompt=_PROMPT,
        width=px,
        height=px,
        steps=steps,
        seed=seed,
        adapters=((tables[adapter % len(tables)], 1.0),),
        tenant=tenant,
    )
