"""The systems that are compared: diffusers as people use it, and our engine under other policies."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from inference.adapters import AdapterTable
from inference.engine import Engine
from inference.model import LoadedModel
from inference.residency import AdapterCosts
from inference.rows import ImageRequest, Row
from inference.scheduler import Scheduler
from tests.bench.engine.workload import STEPS, Ask

STEP_SECONDS_MAX = 0.1  # as a worker's default
ALWAYS_MERGE = AdapterCosts(1.0, 0.0, 0.0)

Tables = Mapping[int, AdapterTable]


class Run(NamedTuple):
    """Seconds for all the images and from each one's arrival to its picture, of wall and of CPU time; and the share
    of busy time that no row was charged for."""

    seconds: float
    cpu_seconds: float
    latencies: list[float]
    drift: float = 0.0


class OneByOne(Scheduler[Row]):
    """First come, first served, each image run to its end, as a queue in front of a pipeline does."""

    def next_batch(self) -> list[Row]:
        return self.rows_by_age()[:1]

    def rows_by_age(self) -> list[Row]:
        return sorted(self.rows(), key=lambda row: row.submitted_at)

    def within_limits(self, rows: list[Row]) -> list[Row]:
        batch: list[Row] = []
        for row in rows:
            if not batch or sum(other.work for other in batch) + row.work <= self.work_max:
                batch.append(row)
        return batch


class EqualAdapters(OneByOne):
    """Batches of rows with the oldest row's adapter, as engines with one active adapter do."""

    def next_batch(self) -> list[Row]:
        rows = self.rows_by_age()
        return self.within_limits([row for row in rows if row.composition == rows[0].composition])


class AdapterAffinity(OneByOne):
    """Stays with an adapter while rows of it are there, then goes on to the oldest row's."""

    _current: object = None

    def next_batch(self) -> list[Row]:
        rows = self.rows_by_age()
        if rows and all(row.composition != self._current for row in rows):
            self._current = rows[0].composition
        return self.within_limits([row for row in rows if row.composition == self._current])


@dataclass
class Ours:
    """The engine with a policy. `costs` and `merged_slots` replace what was measured for the model."""

    model: LoadedModel
    policy: Callable[..., Scheduler[Row]] = Scheduler
    costs: AdapterCosts | None = None
    merged_slots: int | None = None

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """A running engine, ended at the end."""
        measured = self.model.costs, self.model.merged_slots
        self.model.costs = self.costs or measured[0]
        self.model.merged_slots = measured[1] if self.merged_slots is None else self.merged_slots
        scheduler = self.policy(tokens_max=self.model.tokens_max)
        engine = Engine(self.model, clock=time.monotonic, scheduler=scheduler, step_seconds_max=STEP_SECONDS_MAX)
        self.model.costs, self.model.merged_slots = measured
        engine.start()
        try:
            yield engine
        finally:
            engine.close()

    def run(self, asks: list[Ask], tables: Tables) -> Run:
        with self.engine() as engine:
            begun, cpu_begun = time.monotonic(), time.process_time()
            rows = []
            for ask in asks:
                time.sleep(max(0.0, begun + ask.after_seconds - time.monotonic()))
                rows.append(engine.submit(request_of(ask, tables)))
            for row in rows:
                row.result()
            seconds, cpu_seconds = time.monotonic() - begun, time.process_time() - cpu_begun
            attributed = sum(row.gpu_seconds for row in rows)
            latencies = [(row.finished_at or 0.0) - row.submitted_at for row in rows]
            return Run(seconds, cpu_seconds, latencies, abs(1 - attributed / engine.meter.busy_seconds))


def request_of(ask: Ask, tables: Tables) -> ImageRequest:
    return ImageRequest(
        prompt=ask.prompt,
        width=ask.px,
        height=ask.px,
        steps=STEPS,
        seed=ask.seed,
        adapters=() if ask.adapter is None else ((tables[ask.adapter], 1.0),),
        tenant=ask.tenant,
    )


class Diffusers:
    """The pipeline, one image at a time, its adapters by PEFT: loaded for each image, or all beforehand."""

    def __init__(self, checkpoint: Path, *, preloaded: Tables | None) -> None:
        from inference.demo_model.models import load_pipeline

        self._pipe = load_pipeline(checkpoint)
        self._preloaded = preloaded
        for number, table in (preloaded or {}).items():
            self._pipe.load_lora_weights(_state(table), adapter_name=_name(number))

    def run(self, asks: list[Ask], tables: Tables) -> Run:
        begun, cpu_begun = time.monotonic(), time.process_time()
        latencies = []
        for ask in asks:
            time.sleep(max(0.0, begun + ask.after_seconds - time.monotonic()))
            if self._preloaded is None:
                self._pipe.load_lora_weights(_state(tables[ask.adapter]), adapter_name="only")
            else:
                self._pipe.set_adapters([_name(ask.adapter)], [1.0])
            self._pipe(
                ask.prompt,
                width=ask.px,
                height=ask.px,
                num_inference_steps=STEPS,
                guidance_scale=0.0,
                generator=torch.Generator("cpu").manual_seed(ask.seed),
            )
            if self._preloaded is None:
                self._pipe.unload_lora_weights()
            latencies.append(time.monotonic() - begun - ask.after_seconds)
        return Run(time.monotonic() - begun, time.process_time() - cpu_begun, latencies)


def _state(table: AdapterTable) -> dict[str, torch.Tensor]:
    state = {}
    for path, (a, b) in table.on("cpu").items():
        state[f"transformer.{path}.lora_A.weight"] = a
        state[f"transformer.{path}.lora_B.weight"] = b
    return state


def _name(number: int) -> str:
    """Name an adapter, at a fixed width: if one name is a prefix of another, PEFT warns of missing keys."""
    return f"adapter{number:04}"
