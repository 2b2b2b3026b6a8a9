"""Every part of the engine benchmark runs at a tiny scale, and every system generates what it is asked for."""

import torch

from inference.demo_model import CHECKPOINT_DIR
from inference.model import AdapterLimits, load_model
from tests.bench.engine import arrivals, cuda
from tests.bench.engine.systems import ALWAYS_MERGE, AdapterAffinity, Diffusers, EqualAdapters, OneByOne, Ours
from tests.bench.engine.workload import Ask, adapter_table, asks
from tests.bench.report import Report


def test_the_workload_is_the_same_each_time_and_favours_the_first_adapters():
    work = asks(2000, adapters=64, per_second=10)
    assert work == asks(2000, adapters=64, per_second=10)
    counts = [sum(ask.adapter == number for ask in work) for number in range(64)]
    assert counts[0] > 2 * counts[3] > counts[40]
    assert 900 < sum(ask.tenant == "flood" for ask in work) < 1100
    assert 150 < work[-1].after_seconds < 250


def test_every_system_runs_the_workload_and_ours_attributes_all_of_it():
    model = load_model(str(CHECKPOINT_DIR), name="demo", limits=AdapterLimits(rank_max=8))
    tables = {number: adapter_table(model.targets, number) for number in range(2)}
    work = [Ask(0.0, "acme", "a red circle", 32, seed, seed % 2) for seed in range(3)]
    policies = [
        Ours(model),
        Ours(model, OneByOne),
        Ours(model, EqualAdapters),
        Ours(model, AdapterAffinity, costs=ALWAYS_MERGE, merged_slots=1),
    ]
    assert all(system.run(work, tables).drift < 0.001 for system in policies)
    for preloaded in (None, tables):
        assert Diffusers(CHECKPOINT_DIR, preloaded=preloaded).run(work, tables).seconds > 0


def test_latency_is_counted_from_the_arrival_on_with_and_without_a_flood():
    model = load_model(str(CHECKPOINT_DIR), name="demo", limits=AdapterLimits(rank_max=8))
    tables = {number: adapter_table(model.targets, number) for number in range(2)}
    work = [Ask(after_seconds, "acme", "a red circle", 32, seed=1, adapter=0) for after_seconds in (0.0, 0.2)]
    for system in (Ours(model), Diffusers(CHECKPOINT_DIR, preloaded=tables)):
        run = system.run(work, tables)
        assert len(run.latencies) == 2
        assert run.seconds >= 0.2 + run.latencies[1] * 0.99
    report = Report()
    arrivals.flooded(report, model, tables, count=1, flood=2)
    figures = {name: value for name, value, _ in report.figures}
    assert {"flood_slows_others_p95_ours", "flood_slows_others_p95_fifo"} <= figures.keys()
    assert min(figures.values()) > 0


def test_the_measures_of_a_cuda_device_run_at_a_small_size_on_a_cpu():
    found: dict[str, float] = {}
    cuda.measure(
        lambda name, value, **_: found.update({name: value}),
        shape=cuda.TINY,
        vae_channels=cuda.TINY_VAE_CHANNELS,
        device="cpu",
        dtype=torch.float32,
        sizes=(64, 32),
        count=2,
        repeats_max=1,
    )
    assert {"cuda_64_alone_s", "cuda_32_images_per_s", "cuda_adapter_tax_8", "cuda_join_delay_steps"} <= found.keys()
