"""An image is a function of its request, not of its neighbours or of when these join and leave."""

import time

import numpy as np
import pytest
import torch
from PIL import Image

from inference.engine import Engine
from inference.errors import (
    AdapterRejected,
    Canceled,
    DeadlinePassed,
    OutOfMemory,
    PromptTooLong,
    SizeUnsupported,
    WorkerStopped,
)
from inference.residency import AdapterCosts
from inference.rows import ImageRequest
from inference.scheduler import Scheduler


def request(prompt="a red circle", **fields) -> ImageRequest:
    return ImageRequest(**{"prompt": prompt, "width": 64, "height": 64, "steps": 4, "seed": 1, **fields})


def engine_on(model, tokens_max: int = 10_000) -> Engine:
    return Engine(model, clock=time.monotonic, scheduler=Scheduler(tokens_max=tokens_max), step_seconds_max=100)


@pytest.fixture
def engine(model) -> Engine:
    return engine_on(model)


@pytest.fixture
def adapter(load, lora_tensors):
    return lambda seed: load(lora_tensors(seed))


def drain(engine: Engine) -> None:
    while engine.step():
        pass


def image_alone(model, wanted: ImageRequest) -> Image.Image:
    engine = engine_on(model)
    row = engine.submit(wanted)
    drain(engine)
    return row.result(0)


def assert_same(image: Image.Image, other: Image.Image) -> None:
    """Equal but for rounding: a value on the edge between two of the 256 levels may fall either way."""
    left, right = (np.asarray(picture, dtype=np.int16) for picture in (image, other))
    assert left.shape == right.shape
    assert np.abs(left - right).max() <= 1
    assert (left != right).mean() < 0.001


@pytest.mark.parametrize(
    "fields", [{}, {"width": 96, "height": 32, "steps": 8, "seed": 2**32}, {"prompt": "", "steps": 1}]
)
def test_an_image_equals_the_pipelines(model, pipe, fields):
    wanted = request(**fields)
    expected = pipe(
        wanted.prompt,
        width=wanted.width,
        height=wanted.height,
        num_inference_steps=wanted.steps,
        guidance_scale=0.0,
        generator=torch.Generator("cpu").manual_seed(wanted.seed),
    ).images[0]
    assert_same(image_alone(model, wanted), expected)


def test_latents_of_a_crowded_batch_are_those_of_an_image_alone(engine, model):
    wanted = request(steps=5)
    single, crowded = [], []
    for seen, neighbours in ((single, 0), (crowded, 5)):
        row = engine.submit(wanted)
        for i in range(neighbours):
            engine.submit(request("b" * 20 * i, width=32 + 32 * i, steps=1 + i, seed=i))
        while not row.done:
            engine.step()
            if row.latents is not None:
                seen.append(row.latents)
        drain(engine)
    assert len(single) == len(crowded) == 5
    for left, right in zip(single, crowded, strict=True):
        torch.testing.assert_close(left, right, atol=1e-4, rtol=0)


@pytest.mark.parametrize("steps_before", [0, 1, 3])
def test_neighbours_that_join_and_leave_do_not_change_an_image(engine, model, adapter, steps_before):
    wanted = request(steps=6)
    row = engine.submit(wanted)
    for _ in range(steps_before):
        engine.step()
    short = engine.submit(request("a blue star on the left", steps=1, seed=5))
    large = engine.submit(request("x" * 70, width=128, height=96, steps=3, seed=6))
    styled = engine.submit(request(adapters=((adapter(1), 1.0),), seed=7))
    gone = engine.submit(request(seed=8))
    engine.step()
    gone.cancel()
    drain(engine)
    assert_same(row.result(0), image_alone(model, wanted))
    for neighbour in (short, large, styled):
        assert_same(neighbour.result(0), image_alone(model, neighbour.request))
    with pytest.raises(Canceled):
        gone.result(0)


def test_an_adapter_changes_its_own_rows_only(engine, model, adapter):
    first, second = adapter(1), adapter(2)
    plain, styled = request(), request(adapters=((first, 1.0),))
    both = request(adapters=((first, 1.0), (second, 0.5)))
    rows = [engine.submit(wanted) for wanted in (plain, styled, both, plain)]
    drain(engine)
    images = [row.result(0) for row in rows]
    assert_same(images[0], images[3])
    assert images[0] != images[1] != images[2] != images[0]
    for row, image in zip(rows, images, strict=True):
        assert_same(image, image_alone(model, row.request))


def test_rows_of_different_adapters_share_a_step(engine, adapter):
    adapters = [((adapter(1), 1.0),), ((adapter(2), 0.5), (adapter(1), -0.3)), (), ((adapter(3), 1.0),)]
    rows = [engine.submit(request(adapters=chosen)) for chosen in adapters]
    step = engine.step()
    assert set(step.rows) == set(rows)
    assert step.adapters == 3


@pytest.mark.parametrize(("steps", "preview_steps"), [(9, [3, 6]), (2, [1]), (1, [])])
def test_previews_come_at_equal_distances_and_never_after_the_last_step(engine, model, steps, preview_steps):
    previews = []
    wanted = request(steps=steps, previews=2)

    def on_preview(row, number, image):
        previews.append((row.steps_done, number, image.size))

    row = engine.submit(wanted, on_preview=on_preview)
    drain(engine)
    assert previews == [(step, number, (8, 8)) for number, step in enumerate(preview_steps)]
    assert_same(row.result(0), image_alone(model, wanted))


def test_an_image_does_not_fail_when_its_preview_does(engine, model, monkeypatch):
    monkeypatch.setattr(model, "preview", lambda latents: 1 / 0)
    row = engine.submit(request(previews=1), on_preview=lambda *_: None)
    drain(engine)
    assert row.result(0).size == (64, 64)


def test_a_prompt_too_long_is_refused_at_once(engine):
    with pytest.raises(PromptTooLong):
        engine.submit(request("x" * 600))


@pytest.mark.parametrize("scale", [float("inf"), float("nan")])
def test_a_scale_that_is_no_finite_number_is_refused_at_once(engine, adapter, scale):
    with pytest.raises(AdapterRejected) as refused:
        engine.submit(request(adapters=((adapter(1), scale),)))
    assert refused.value.code == "adapter_scale_bad"


def test_more_adapters_than_adapter_slots_are_refused_at_once(engine, adapter):
    with pytest.raises(AdapterRejected, match="the image has 40 adapters; at most 16 are possible") as refused:
        engine.submit(request(adapters=((adapter(1), 1.0),) * 40))
    assert refused.value.code == "too_many_adapters"


def test_more_adapters_in_flight_than_adapter_slots_take_turns_in_them(engine, model, load, lora_tensors):
    rows = [
        engine.submit(request(steps=2, seed=seed, adapters=((load(lora_tensors(seed)), 1.0),))) for seed in range(20)
    ]
    engine.step()
    assert sum(row.adapter_slots is not None for row in rows) == model.adapter_slots
    drain(engine)
    for row in rows[::7]:
        assert_same(row.result(0), image_alone(model, row.request))


def test_rows_change_to_merged_weights_when_that_costs_less_and_stay_the_same(model, adapter, monkeypatch):
    wanted = [request(steps=6, seed=seed, adapters=((adapter(1), 1.0),)) for seed in range(2)]
    expected = [image_alone(model, request) for request in wanted]
    monkeypatch.setattr(model, "costs", AdapterCosts(1.0, 500.0, 1.0))
    engine = engine_on(model)
    rows = [engine.submit(wanted[0]), engine.submit(request(steps=6, adapters=((adapter(2), 1.0),)))]
    assert engine.step().merged == 0  # 64 tokens at each of 6 steps are less than a merge costs
    rows.append(engine.submit(wanted[1]))
    assert engine.step().merged == 2  # the two of one adapter share it
    drain(engine)
    assert_same(rows[0].result(0), expected[0])
    assert_same(rows[2].result(0), expected[1])


def test_a_row_past_its_deadline_leaves_at_the_next_step(model):
    now = 0.0
    engine = Engine(model, clock=lambda: now, scheduler=Scheduler(tokens_max=1000), step_seconds_max=100)
    late, early = engine.submit(request(deadline_at=10.0)), engine.submit(request())
    engine.step()
    now = 10.5
    engine.step()
    with pytest.raises(DeadlinePassed):
        late.result(0)
    assert late.steps_done == 1
    drain(engine)
    assert early.result(0)


def test_a_row_canceled_while_it_is_prepared_or_decoded_is_canceled(engine):
    before = engine.submit(request())
    before.cancel()
    drain(engine)
    decoding = engine.submit(request(steps=1))
    engine.step()
    decoding.cancel()
    drain(engine)
    for row in (before, decoding):
        with pytest.raises(Canceled):
            row.result(0)
    assert decoding.steps_done == 1


def gpu_seconds_of(rows) -> list[float]:
    return [row.gpu_seconds for row in rows]


@pytest.mark.parametrize("steps_before", range(5))
def test_rows_that_yield_get_nothing_while_another_is_in_flight(engine, model, adapter, steps_before):
    """Whatever phase they are in: waiting, prepared, stepped or about to be decoded."""
    fields = [{"seed": seed, "yields": True, "steps": 3, "adapters": ((adapter(seed), 1.0),)} for seed in (1, 2)]
    yielding = [engine.submit(request(**one)) for one in fields]
    for _ in range(steps_before):
        engine.step()
    other = engine.submit(request("a blue square"))
    late = engine.submit(request(seed=9, yields=True))
    before = gpu_seconds_of([*yielding, late])
    engine_steps = 0
    while not other.done:
        engine.step()
        engine_steps += 1
        assert gpu_seconds_of([*yielding, late]) == before
    assert engine_steps == 5  # preparation with the first of four steps, then the decoding: as if it were alone
    drain(engine)
    assert_same(other.result(0), image_alone(model, request("a blue square")))
    for row in yielding:
        assert_same(row.result(0), image_alone(model, row.request))


def test_a_row_takes_the_adapter_slots_of_rows_that_yield(engine, model, adapter):
    yielding = [
        engine.submit(request(yields=True, seed=seed, adapters=((adapter(seed), 1.0),)))
        for seed in range(model.adapter_slots)
    ]
    while not all(row.steps_done for row in yielding):
        engine.step()
    other = engine.submit(request(adapters=((adapter(99), 1.0),)))
    engine.step()
    assert other.steps_done == 1
    drain(engine)
    for row in (other, *yielding):
        assert_same(row.result(0), image_alone(model, row.request))


def test_a_row_that_yields_is_canceled_while_it_is_held_back(engine):
    decoding, stepping = (engine.submit(request(yields=True, steps=steps)) for steps in (1, 9))
    while not decoding.last_step_at:
        engine.step()
    other = engine.submit(request(steps=50))
    engine.step()
    decoding.cancel()
    stepping.cancel()
    engine.step()
    engine.step()
    assert (decoding.done, stepping.done, other.done) == (True, True, False)


def test_nothing_is_merged_for_rows_that_yield(model, adapter, monkeypatch):
    monkeypatch.setattr(model, "costs", AdapterCosts(1.0, 0.0, 0.0))
    engine = engine_on(model)
    fields = {"adapters": ((adapter(1), 1.0),)}
    engine.submit(request(yields=True, **fields))
    assert engine.step().merged == 0
    engine.submit(request(**fields))
    assert engine.step().merged == 1


def test_an_impossible_size_is_refused_at_once(engine):
    with pytest.raises(SizeUnsupported):
        engine.submit(request(width=65))


def test_an_error_in_a_step_fails_the_batch_and_not_the_engine(engine, model, monkeypatch):
    doomed = engine.submit(request())
    with monkeypatch.context() as patched:
        patched.setattr(model, "velocity", lambda *_: 1 / 0)
        engine.step()
    later = engine.submit(request())
    drain(engine)
    with pytest.raises(ZeroDivisionError):
        doomed.result(0)
    assert later.result(0)
    assert doomed.gpu_seconds > 0


def test_a_batch_too_large_for_the_memory_is_split_and_what_cannot_fit_alone_fails(engine, model, monkeypatch):
    real, batches = model.velocity, []

    def short_of_memory(latents, *rest):
        batches.append(len(latents))
        if sum(x.numel() for x in latents) > 20_000:
            raise OutOfMemory("too much")
        return real(latents, *rest)

    monkeypatch.setattr(model, "velocity", short_of_memory)
    rows = [engine.submit(request(width=256, height=128, seed=seed)) for seed in range(4)]
    too_large = engine.submit(request(width=512, height=256))
    drain(engine)
    assert batches[:3] == [4, 2, 2]
    assert max(batches[3:]) == 3  # the limit of tokens was lowered after the first failure
    for row in rows:
        assert_same(row.result(0), image_alone(model, row.request))
    with pytest.raises(OutOfMemory):
        too_large.result(0)


@pytest.mark.parametrize("concurrent", [False, True])
def test_the_threads_serve_many_callers_and_end_what_is_left_when_closed(engine, model, monkeypatch, concurrent):
    monkeypatch.setattr(model, "concurrent", concurrent)
    engine.start()
    rows = [engine.submit(request(seed=seed)) for seed in range(4)]
    assert [row.result(30).size for row in rows] == [(64, 64)] * 4
    assert [row.steps_done for row in rows] == [4] * 4
    unfinished = engine.submit(request(steps=5000))
    engine.close()
    with pytest.raises(WorkerStopped):
        unfinished.result(0)
    with pytest.raises(WorkerStopped):
        engine.submit(request())
