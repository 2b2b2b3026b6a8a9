"""`make bench-engine`: our engine against diffusers and against itself under other policies, in one process.

Ratios of medians over rounds in which every system has its turn; `name value` lines last. QUICK=1 ends within five
minutes, RECORD=1 writes the figures into tests/bench/RESULTS.md. With a CUDA device the full-size configuration of
Z-Image-Turbo is measured too, with random weights.
"""

import os
import platform
import statistics
import time
from functools import partial

import diffusers
import structlog
import torch

from inference.calibration import warm_up
from inference.demo_model import CHECKPOINT_DIR
from inference.model import AdapterLimits, LoadedModel, load_model
from inference.openmp import run_in_fresh_thread
from tests.bench.engine import arrivals, cuda, measures
from tests.bench.engine.systems import ALWAYS_MERGE, AdapterAffinity, Diffusers, EqualAdapters, OneByOne, Ours
from tests.bench.engine.workload import adapter_table, asks
from tests.bench.report import Report, say


def throughput(report: Report, *, count: int, adapters: int, rounds: int) -> float:
    """Everything queued at once, adapters by a Zipf law: images per second, ours over each other system's.

    In every round all systems get the same images; the ratio is the median of the rounds' own. Returns the images per
    second of diffusers with adapters loaded for each image.
    """
    model = run_in_fresh_thread(demo_model)
    tables = {number: adapter_table(model.targets, number) for number in range(adapters)}
    works = [asks(count, adapters=adapters, seed=seed) for seed in range(rounds + 1)]
    by_adapter = {ask.adapter: tables[ask.adapter] for work in works for ask in work}
    systems: dict[str, Ours | Diffusers] = {
        "ours": Ours(model),
        "diffusers_reload": run_in_fresh_thread(lambda: Diffusers(CHECKPOINT_DIR, preloaded=None)),
        "diffusers_preloaded": run_in_fresh_thread(lambda: Diffusers(CHECKPOINT_DIR, preloaded=by_adapter)),
        "unbatched": Ours(model, OneByOne),
        "equal_adapters": Ours(model, EqualAdapters),
        "merge_swap": Ours(model, AdapterAffinity, costs=ALWAYS_MERGE, merged_slots=1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in systems}
    drifts = []
    for i, work in enumerate(works):
        for name, system in systems.items():
            asked = work[:3] if i == 0 else work  # the first round only warms up
            run = run_in_fresh_thread(partial(system.run, asked, tables))  # to each all the cores, one after the other
            if i:
                seconds[name].append(run.seconds)
                cpu_seconds[name].append(run.cpu_seconds)
                drifts.append(run.drift)
        if i:
            rates = ", ".join(f"{name} {count / found[-1]:.2f}" for name, found in seconds.items())
            say(f"  {adapters} adapters, round {i} of {rounds}, images/s: {rates}")
    suffix = "" if adapters == 64 else f"_{adapters}_adapters"
    targets = {"diffusers_reload": 3.0, "diffusers_preloaded": 2.0, "merge_swap": 0.95}
    for name in list(systems)[1:]:
        ratios = [theirs / ours for theirs, ours in zip(seconds[name], seconds["ours"], strict=True)]
        report.add(
            f"images_per_s_vs_{name}{suffix}", statistics.median(ratios), target_min=targets.get(name), of=ratios
        )
        # What other programs on the machine take is not in it, as it is in the time on the clock.
        ratios = [theirs / ours for theirs, ours in zip(cpu_seconds[name], cpu_seconds["ours"], strict=True)]
        report.add(f"cpu_seconds_vs_{name}{suffix}", statistics.median(ratios), of=ratios)
    report.add(f"images_per_s{suffix}", count / statistics.median(seconds["ours"]))
    report.add(f"attribution_drift{suffix}", max(drifts), target_max=0.001)
    return count / statistics.median(seconds["diffusers_reload"])


def latency(report: Report, *, reload_per_second: float, quick: bool) -> None:
    """Images that come at random times, at a load that every system can bear; and a tenant that floods."""
    model = run_in_fresh_thread(demo_model)
    tables = {number: adapter_table(model.targets, number) for number in range(8)}
    systems = {
        "ours": Ours(model),
        "diffusers_reload": run_in_fresh_thread(lambda: Diffusers(CHECKPOINT_DIR, preloaded=None)),
        "diffusers_preloaded": run_in_fresh_thread(lambda: Diffusers(CHECKPOINT_DIR, preloaded=tables)),
    }
    rate = arrivals.LOAD * reload_per_second
    arrivals.poisson(report, systems, tables, per_second=rate, count=8 if quick else 32, rounds=1 if quick else 3)
    arrivals.flooded(report, model, tables, count=4 if quick else 16, flood=12 if quick else 48)


def demo_model() -> LoadedModel:
    model = load_model(str(CHECKPOINT_DIR), name="demo", limits=AdapterLimits(rank_max=16))
    warm_up(model)
    return model


def engine_alone(report: Report, *, quick: bool) -> None:
    model = run_in_fresh_thread(demo_model)
    tables = {number: adapter_table(model.targets, number) for number in range(40)}
    fifo, ours = measures.small_behind_large(model, tables, trials=5 if quick else 20, large_px=384)
    report.add("small_behind_large_p95_speedup", fifo / ours, target_min=5)
    unmerged, chosen = run_in_fresh_thread(
        lambda: measures.adapter_tax(model, tables, rows=8, px=256, rounds=9 if quick else 31)
    )
    report.add("adapter_tax_8", chosen, target_max=15)
    report.add("adapter_tax_8_unmerged", unmerged)
    report.add("adapter_to_slot_ms", run_in_fresh_thread(lambda: measures.adapter_slot_load(model, tables)))
    report.add("join_delay_steps", measures.join_delay(model, tables, trials=5 if quick else 15))
    growth, moved = measures.soak(model, tables, joins=1_000 if quick else 10_000)
    report.add("soak_peak_memory_growth_percent", growth, target_max=5)
    report.add("soak_largest_difference_of_255", moved, target_max=1)


def main() -> None:
    quick = bool(os.environ.get("QUICK"))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    diffusers.utils.logging.disable_progress_bar()
    begun = time.monotonic()
    report = Report()
    for adapters in (64,) if quick else (8, 64, 256):
        rate = throughput(report, count=8 if quick else 24, adapters=adapters, rounds=5)
    latency(report, reload_per_second=rate, quick=quick)
    engine_alone(report, quick=quick)
    device = f"{platform.machine()} CPU, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads"
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
        cuda.measure(report.add)
    report.publish("Engine", "make bench-engine", device, seconds=time.monotonic() - begun, quick=quick)


if __name__ == "__main__":
    main()
