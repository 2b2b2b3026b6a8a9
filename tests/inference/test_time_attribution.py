"""Every busy second is charged to a row, on a model of numbers and a clock that only work advances."""

from contextlib import nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.attribution import BusyTimeMeter
from inference.engine import Engine
from inference.errors import OutOfMemory
from inference.residency import AdapterCosts
from inference.rows import ImageRequest, Row
from inference.scheduler import Scheduler


@dataclass
class FakeModel:
    """Its latents are one number, which steps move to 0. Work takes the scripted seconds, and some of it fails."""

    script: Any = field(default_factory=lambda: iter(lambda: (0.25, None), None))
    now: float = 100.0
    worked_seconds: float = 0.0

    def clock(self) -> float:
        return self.now

    def work(self) -> None:
        seconds, error = next(self.script)
        self.now += seconds
        self.worked_seconds += seconds
        if error:
            raise error

    adapter_slots = 2
    merged_slots = 1
    concurrent = False
    costs = AdapterCosts(0.01, 1.0, 0.1)
    work_per_second = 1e3

    def prompt_ids(self, prompt: str) -> list[int]:
        return [0, *map(ord, prompt)]

    def step_tokens(self, width: int, height: int, prompt_tokens: int) -> int:
        return width * height // 256 + prompt_tokens

    def step_work(self, width: int, height: int, prompt_tokens: int) -> float:
        return float(self.step_tokens(width, height, prompt_tokens))

    def encode(self, prompts: list[list[int]]) -> list[Any]:
        self.work()
        return ["caption"] * len(prompts)

    def load(self, adapter_slot: int, adapter: Any) -> None:
        self.work()

    def merge(self, merged_slot: int, scaled_slots: Any) -> None:
        self.work()

    def sequence(self, caption: Any, width: int, height: int, adapters: Any) -> Any:
        self.work()
        return "sequence"

    def initial_latents(self, seed: int, width: int, height: int) -> float:
        return 1.0

    def sigmas(self, steps: int, width: int, height: int) -> list[float]:
        return [1 - i / steps for i in range(steps + 1)]

    def velocity(self, latents: list[float], sigmas: list[float], sequences: Any, adapters: list[Any]) -> list[float]:
        assert latents == pytest.approx(sigmas)
        self.work()
        return [1.0] * len(latents)

    def decode(self, latents: list[float]) -> list[str]:
        assert latents == pytest.approx([0] * len(latents))
        self.work()
        return ["image"] * len(latents)

    def stream(self) -> Any:
        return nullcontext()

    def synchronize(self) -> None:
        self.work()


def engine_on(model: FakeModel) -> Engine:
    return Engine(model, clock=model.clock, scheduler=Scheduler(tokens_max=500), step_seconds_max=10.0)


def request(tokens: int = 16, steps: int = 2, prompt: str = "", **fields: Any) -> ImageRequest:
    return ImageRequest(prompt=prompt, width=16 * tokens, height=16, steps=steps, seed=0, **fields)


def drain(engine: Engine) -> None:
    while engine.step():
        pass


A, B, C = (SimpleNamespace(sha256=sha256) for sha256 in "abc")
seconds = st.floats(0, 10, allow_subnormal=False)
errors = st.sampled_from([None] * 12 + [OutOfMemory("full"), ValueError("broken")])
images = st.fixed_dictionaries(
    {
        "tokens": st.integers(1, 300),
        "steps": st.integers(1, 4),
        "prompt": st.text("x", max_size=50),
        "adapters": st.sampled_from([(), ((A, 1.0),), ((A, 1.0), (B, 0.5)), ((C, 1.0),)]),
    }
)


@given(
    script=st.lists(st.tuples(seconds, errors), min_size=5, max_size=40),
    arrivals=st.lists(st.lists(images, max_size=4), max_size=5),
    canceled=st.sets(st.integers(0, 19)),
)
def test_attributed_seconds_are_the_busy_seconds_whatever_happens(script, arrivals, canceled):
    endless = iter([*script, *[(1.0, None)] * 10_000])
    model = FakeModel(endless)
    engine = engine_on(model)
    rows: list[Row] = []
    for arrived in arrivals:
        rows += [engine.submit(request(**image)) for image in arrived]
        engine.step()
        for i in canceled & set(range(len(rows))):
            rows[i].cancel()
        model.now += 3.0  # idle time is charged to nobody
    drain(engine)

    assert all(row.done for row in rows)
    meter = engine.meter
    assert meter.busy_seconds == pytest.approx(model.worked_seconds, rel=1e-9)
    assert meter.attributed_seconds == pytest.approx(meter.busy_seconds, rel=1e-9)
    assert sum(row.gpu_seconds for row in rows) == pytest.approx(model.worked_seconds, rel=1e-9)


def test_a_shared_step_is_split_by_work():
    free = [(0.0, None)]
    model = FakeModel(iter([*free * 6, (8.0, None), *free * 99]))
    engine = engine_on(model)
    small, large = engine.submit(request(20, prompt="x" * 11)), engine.submit(request(90, prompt="y" * 5))
    engine.step()  # one encoding and two sequences, each synchronised; then the step of both
    assert (small.gpu_seconds, large.gpu_seconds) == pytest.approx((8 * 32 / 128, 8 * 96 / 128))


@given(
    blocks=st.lists(
        st.tuples(st.integers(0, 50), st.integers(1, 50)).map(lambda b: (b[0], b[0] + b[1])), min_size=1, max_size=8
    )
)
def test_work_that_overlaps_is_charged_no_more_than_the_clock_shows(blocks):
    now = 0.0
    meter = BusyTimeMeter(lambda: now, lambda: None)
    rows = [SimpleNamespace(gpu_seconds=0.0, tenant="acme") for _ in blocks]
    charges = [meter.charge([(row, 1)]) for row in rows]
    for now in range(101):
        for charge, (started, ended) in zip(charges, blocks, strict=True):
            if now == ended:
                charge.__exit__(None, None, None)
            if now == started:
                charge.__enter__()
    covered = len({moment for started, ended in blocks for moment in range(started, ended)})
    assert meter.busy_seconds == pytest.approx(covered)
    assert sum(row.gpu_seconds for row in rows) == pytest.approx(covered)


def test_loading_is_charged_to_the_pool_and_to_no_tenant():
    engine = engine_on(FakeModel())
    engine.meter.charge_pool(12.5)
    assert (engine.meter.load_seconds, engine.meter.busy_seconds) == (12.5, 0)


def test_a_failed_row_keeps_its_charged_time():
    seconds = 1.0, 0.5, 0.25, 0.0  # to encode and to make its sequence, and to wait for each
    model = FakeModel(iter([*((second, None) for second in seconds), (4.0, ValueError("broken"))]))
    engine = engine_on(model)
    row = engine.submit(request())
    engine.step()
    with pytest.raises(ValueError, match="broken"):
        row.result(0)
    assert row.gpu_seconds == 5.75


def test_the_images_of_one_job_encode_their_prompt_once():
    model = FakeModel()
    engine = engine_on(model)
    first, second = (engine.submit(request(prompt="a star", tenant="acme")) for _ in range(2))
    stranger = engine.submit(request(prompt="a star", tenant="other"))
    drain(engine)
    assert first.prompt_tokens == second.prompt_tokens == 7
    # A caption is shared within a tenant only: otherwise timing would reveal that another tenant used a prompt.
    assert first.gpu_seconds == pytest.approx(stranger.gpu_seconds)
    assert second.gpu_seconds < first.gpu_seconds
