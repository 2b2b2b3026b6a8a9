"""The operations of a loaded model equal those of the pipeline that they were taken from."""

import time

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image

from inference.demo_model import CHECKPOINT_DIR
from inference.engine import Engine
from inference.errors import PromptTooLong, SizeUnsupported
from inference.model import AdapterLimits, LoadedModel, load_model
from inference.rows import ImageRequest
from inference.scheduler import Scheduler


def test_a_prompt_without_padding_reads_as_the_pipeline_reads_it(model, pipe):
    (caption,) = model.encode([model.prompt_ids("a red circle")])
    with torch.no_grad():
        (expected,), _ = pipe.encode_prompt("a red circle", do_classifier_free_guidance=False)
    assert len(caption) == len(expected)
    torch.testing.assert_close(caption, expected, atol=1e-5, rtol=0)


def test_the_noise_of_a_seed_is_the_pipelines(model, pipe):
    generator = torch.Generator("cpu").manual_seed(7)
    expected = pipe.prepare_latents(1, 16, 64, 96, torch.float32, torch.device("cpu"), generator)
    torch.testing.assert_close(model.initial_latents(7, 96, 64), expected[0], atol=0, rtol=0)


@pytest.mark.parametrize(
    "scheduler",
    [
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    ],
    ids=["shift", "dynamic"],
)
@pytest.mark.parametrize("steps", [1, 4, 8])
def test_the_noise_levels_are_the_pipelines(checkpoint, pipe, scheduler, steps):
    theirs = type(pipe).from_pretrained(checkpoint, scheduler=scheduler)
    theirs.set_progress_bar_config(disable=True)
    theirs("x", width=96, height=64, num_inference_steps=steps, guidance_scale=0.0, output_type="latent")
    assert LoadedModel(theirs).sigmas(steps, 96, 64) == theirs.scheduler.sigmas.tolist()


def test_a_prompt_beyond_512_tokens_is_refused_rather_than_cut(model):
    overhead = len(model.prompt_ids(""))
    assert len(model.prompt_ids("a" * (512 - overhead))) == 512
    with pytest.raises(PromptTooLong, match="513 tokens"):
        model.prompt_ids("a" * (513 - overhead))


def test_prompts_encoded_in_one_batch_equal_those_encoded_one_by_one(model):
    prompts = [model.prompt_ids(prompt) for prompt in ("a", "a green star", "b" * 60)]
    for prompt, caption in zip(prompts, model.encode(prompts), strict=True):
        torch.testing.assert_close(caption, model.encode([prompt])[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("width", "height", "tokens"), [(16, 16, 32), (256, 256, 256), (512, 512, 1024), (48, 16, 32)])
def test_a_step_has_a_token_for_every_16_by_16_pixels_and_the_captions_padded_to_32s(model, width, height, tokens):
    assert model.step_tokens(width, height, 33) == tokens + 64


@pytest.mark.parametrize(("width", "height"), [(0, 64), (64, -16), (65, 64), (64, 72), (528, 64), (64, 528)])
def test_a_size_that_the_model_cannot_generate_is_refused(model, width, height):
    with pytest.raises(SizeUnsupported):
        model.step_tokens(width, height, 1)


def test_a_preview_resembles_the_picture_at_an_eighth_of_its_size():
    demo = load_model(str(CHECKPOINT_DIR), name="demo", limits=AdapterLimits(rank_max=8))
    engine = Engine(demo, clock=time.monotonic, scheduler=Scheduler(tokens_max=1000), step_seconds_max=1)
    row = engine.submit(ImageRequest(prompt="a red circle", width=128, height=128, steps=8, seed=1))
    previews = []
    while engine.step() is not None:
        if row.velocity is not None:
            previews.append(demo.preview(row.denoised))
    picture = np.asarray(row.result().resize((16, 16), Image.Resampling.BOX), dtype=float)
    off = [np.abs(np.asarray(preview, dtype=float) - picture).mean() for preview in previews]
    assert [preview.size for preview in previews] == [(16, 16)] * 8
    assert off[-1] < 30  # of 255
    assert off[0] > off[-1]
