"""Quantised weights drift little, by measures that are themselves tested."""

import math

import numpy as np
import pytest
from PIL import Image

from inference.demo_model import CHECKPOINT_DIR
from inference.demo_model.captions import caption_plain
from inference.demo_model.evaluate import held_out_scenes
from inference.rows import ImageRequest
from inference.tools.quality import compare, psnr, side_by_side, ssim, table
from inference.worker.config import ConfigError, WorkerConfig


@pytest.fixture(scope="module")
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 200, (32, 32, 3), dtype=np.uint8))


def brighter(image: Image.Image, by: int) -> Image.Image:
    return Image.fromarray(np.asarray(image) + np.uint8(by))


def test_equal_pictures_are_infinitely_near(noise):
    assert psnr(noise, noise) == math.inf
    assert ssim(noise, noise) == pytest.approx(1)


def test_psnr_is_twenty_decibels_for_an_error_of_a_tenth_of_the_range(noise):
    assert psnr(brighter(noise, 26), noise) == pytest.approx(20 * math.log10(255 / 26))


def test_ssim_falls_with_the_structure_and_hardly_with_the_brightness(noise):
    other = Image.fromarray(np.random.default_rng(1).integers(0, 200, (32, 32, 3), dtype=np.uint8))
    assert ssim(brighter(noise, 20), noise) > 0.9 > 0.1 > ssim(other, noise)


@pytest.fixture(scope="module")
def compared():
    scenes = held_out_scenes(2, pair=False)
    requests = [
        ImageRequest(prompt=caption_plain(scene), width=128, height=128, steps=8, seed=i)
        for i, scene in enumerate(scenes)
    ]
    return compare(str(CHECKPOINT_DIR), requests, scenes)


def test_eight_bits_take_less_memory_and_generate_nearly_the_same(compared):
    drifts, _ = compared
    full = {drift.adapter: drift for drift in drifts if drift.precision == "none"}
    for drift in drifts:
        if drift.precision == "none":
            assert (drift.psnr, drift.ssim) == (None, pytest.approx(1))
        else:
            assert drift.weight_bytes < 0.7 * full[drift.adapter].weight_bytes
            assert drift.psnr is not None
            assert drift.psnr > 25
            assert drift.ssim > 0.9
            assert drift.score == full[drift.adapter].score


def test_an_adapter_works_on_quantised_weights(compared):
    _, pictures = compared
    for precision in ("int8", "fp8"):
        with_adapter, without = pictures[f"{precision} outline"][0], pictures[precision][0]
        assert psnr(with_adapter, pictures["none outline"][0]) > psnr(with_adapter, without)


def test_the_report_has_a_line_and_a_column_for_each_way_to_generate(compared):
    drifts, pictures = compared
    assert len(table(drifts).splitlines()) == 1 + 6
    assert side_by_side(pictures, ["one", "two"]).size == (6 * 128, 24 + 2 * (24 + 128))


def test_custom_prompts_are_generated_with_an_adapter_too_and_not_scored():
    wanted = ImageRequest(prompt="a red circle", width=64, height=64, steps=2, seed=0)
    drifts, _ = compare(str(CHECKPOINT_DIR), [wanted], [])
    assert [(drift.adapter, drift.score) for drift in drifts] == [("", None), ("outline", None)] * 3


def test_a_precision_that_does_not_exist_stops_the_start():
    with pytest.raises(ConfigError, match="EASEL_PRECISION='int4' must be one of none, int8, fp8"):
        WorkerConfig.from_env({"REDIS_URL": "redis://x", "EASEL_PRECISION": "int4"})
