import contextlib
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from easel.catalog.errors import AdapterRefused
from easel.catalog.lora import canonical
from tests.easel.catalog.conftest import RANK, TARGETS, renamed

QKV = [f"layers.0.attention.to_{name}" for name in "qkv"]
OUT = "layers.0.attention.to_out.0"


def convert(data, rank_max=128):
    return canonical(data, targets=TARGETS, rank_max=rank_max)


def refusal(data, **options):
    with pytest.raises(AdapterRefused) as refused:
        convert(data, **options)
    return refused.value


def down_up(name):
    return name.replace("lora_A", "lora_down").replace("lora_B", "lora_up")


def kohya(name):
    module, _, end = down_up(name).partition(".lora_")
    return f"lora_unet_{module.replace('.', '_')}.lora_{end}"


FORMATS = {
    "diffusers": lambda name: f"transformer.{name}",
    "ai-toolkit": lambda name: f"diffusion_model.{name}",
    "DiffSynth": lambda name: name.replace(".weight", ".default.weight"),
    "no prefix": lambda name: name,
    "PEFT": lambda name: f"base_model.model.{name}",
    "PEFT of a pipeline": lambda name: f"base_model.model.transformer.{name}",
    "kohya and musubi": kohya,
    "old diffusers": lambda name: f"transformer.{down_up(name)}".replace("lora_", "lora."),
    "ComfyUI split": lambda name: f"diffusion_model.{down_up(name)}",
}


@pytest.mark.parametrize("rename", FORMATS.values(), ids=FORMATS.keys())
def test_every_format_gives_the_same_canonical_adapter(weights, rename):
    plain = convert(save(weights()))
    assert convert(renamed(weights(), rename)).to_safetensors() == plain.to_safetensors()


def test_the_canonical_file_holds_a_b_and_alpha_of_each_module(weights):
    table = load(convert(save(weights())).to_safetensors())
    assert set(table) == {
        f"{module}.{part}"
        for module in ("layers.0.attention.to_q", "layers.1.feed_forward.w2")
        for part in ("lora_A.weight", "lora_B.weight", "alpha")
    }
    assert table["layers.0.attention.to_q.alpha"] == RANK


def fused(weights, prefix, out_name):
    """ComfyUI's: one A and one B of three times the rows for q, k and v."""
    split = weights(*QKV, OUT)
    a = split[f"{QKV[0]}.lora_A.weight"]
    b = np.concatenate([split[f"{module}.lora_B.weight"] for module in QKV])
    separator = "_" if prefix.startswith("lora_unet_") else "."
    stem = f"{prefix}{'layers.0.attention'.replace('.', separator)}{separator}"
    return save(
        {
            f"{stem}qkv.lora_down.weight": a,
            f"{stem}qkv.lora_up.weight": b,
            f"{stem}qkv.alpha": np.array([2], np.float32),
            f"{stem}{out_name}.lora_down.weight": split[f"{OUT}.lora_A.weight"],
            f"{stem}{out_name}.lora_up.weight": split[f"{OUT}.lora_B.weight"],
        }
    ), split


@pytest.mark.parametrize(("prefix", "out_name"), [("diffusion_model.", "out"), ("lora_unet_", "out"), ("", "to_out.0")])
def test_fused_attention_is_split_completely(weights, prefix, out_name):
    data, split = fused(weights, prefix, out_name)
    table = load(convert(data).to_safetensors())
    for module in QKV:
        assert (table[f"{module}.lora_B.weight"] == split[f"{module}.lora_B.weight"]).all()
        assert (table[f"{module}.lora_A.weight"] == split[f"{QKV[0]}.lora_A.weight"]).all()
        assert table[f"{module}.alpha"] == 2
    assert (table[f"{OUT}.lora_B.weight"] == split[f"{OUT}.lora_B.weight"]).all()


def test_an_alpha_of_the_file_is_copied(weights):
    data = save({**weights("layers.0.attention.to_q"), "layers.0.attention.to_q.alpha": np.array(1.5, np.float32)})
    assert load(convert(data).to_safetensors())["layers.0.attention.to_q.alpha"] == 1.5


def test_an_alpha_of_peft_metadata_is_used(weights):
    config = json.dumps({"transformer.r": 4, "transformer.lora_alpha": 8})
    data = save(weights("layers.0.attention.to_q"), metadata={"lora_adapter_metadata": config})
    assert load(convert(data).to_safetensors())["layers.0.attention.to_q.alpha"] == 8


def truncated(weights):
    return save(weights())[:-10]


def with_key(name, value):
    return lambda weights: save({**weights(), name: value})


def without(part):
    return lambda weights: save({name: w for name, w in weights().items() if part not in name})


def not_finite(value):
    def make(weights):
        spoilt = weights()
        next(iter(spoilt.values()))[0, 0] = value
        return save(spoilt)

    return make


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda weights: b"", "adapter_file_invalid"),
        (lambda weights: b"\0" * 7, "adapter_file_invalid"),
        (lambda weights: b"\xff" * 100, "adapter_file_invalid"),
        (lambda weights: pickle.dumps({"a": 1}), "adapter_is_pickle"),
        (lambda weights: b"PK\x03\x04" + b"\0" * 100, "adapter_is_pickle"),
        (truncated, "adapter_file_invalid"),
        (lambda weights: save({}), "adapter_incomplete"),
        (lambda weights: renamed(weights(), lambda name: f"unet.down.{name}"), "adapter_wrong_base"),
        (with_key("transformer.extra.weight", np.array([1], np.float32)), "adapter_keys_not_understood"),
        (with_key("layers.9.attention.to_q.lora_A.weight", np.array([[1]], np.float32)), "adapter_keys_not_understood"),
        (
            with_key("transformer.layers.0.attention.to_q.lora_A.weight", np.array([[1]], np.float32)),
            "adapter_keys_not_understood",
        ),
        (with_key("layers.0.attention.to_q.dora_scale", np.array([1], np.float32)), "adapter_kind_unsupported"),
        (with_key("layers.0.attention.to_q.lokr_w1", np.array([1], np.float32)), "adapter_kind_unsupported"),
        (with_key("layers.0.attention.to_q.hada_w1_a", np.array([1], np.float32)), "adapter_kind_unsupported"),
        (with_key("layers.0.attention.to_v.lora_A.weight", np.array([[1]], np.int64)), "adapter_keys_not_understood"),
        (without("to_q.lora_B"), "adapter_incomplete"),
        (without("to_q.lora_A"), "adapter_incomplete"),
        (not_finite(np.nan), "adapter_not_finite"),
        (not_finite(np.inf), "adapter_not_finite"),
        (with_key("layers.0.attention.to_q.alpha", np.array(np.nan, np.float32)), "adapter_not_finite"),
        (with_key("layers.0.attention.to_q.alpha", np.array([], np.float32)), "adapter_wrong_shape"),
    ],
)
def test_a_file_that_is_not_wholly_understood_is_refused(weights, make, code):
    assert refusal(make(weights)).code == code


@pytest.mark.parametrize(
    ("part", "shape"),
    [
        ("lora_A", (RANK, 63)),
        ("lora_B", (63, RANK)),
        ("lora_B", (64, RANK + 1)),
        ("lora_A", (64,)),
        ("lora_A", (0, 64)),
    ],
)
def test_weights_of_another_shape_are_refused_with_the_shape_that_is_needed(weights, part, shape):
    spoilt = weights("layers.0.attention.to_q")
    spoilt[f"layers.0.attention.to_q.{part}.weight"] = np.zeros(shape, np.float32)
    refused = refusal(save(spoilt))
    assert refused.code == "adapter_wrong_shape"


def test_a_rank_over_the_limit_is_refused(weights):
    assert refusal(save(weights(rank=9)), rank_max=8).code == "adapter_rank_too_large"


def test_the_keys_that_were_not_understood_are_named(weights):
    data = save({**weights(), "transformer.mystery.weight": np.array([1], np.float32)})
    assert "'transformer.mystery.weight'" in str(refusal(data))


def test_hostile_key_names_are_shown_harmlessly(weights):
    data = save({**weights(), "\x1b[31m" + "x" * 9999: np.array([1], np.float32)})
    assert "\x1b" not in str(refusal(data))
    assert len(str(refusal(data))) < 300


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_adapter_refused(data):
    assert refusal(data).code in {"adapter_file_invalid", "adapter_is_pickle", "adapter_incomplete"}


@given(st.data())
def test_any_damaged_file_is_read_or_refused(weights, data):
    good = bytearray(save(weights("layers.0.attention.to_q")))
    position = data.draw(st.integers(0, len(good) - 1))
    good[position] = data.draw(st.integers(0, 255))
    with contextlib.suppress(AdapterRefused):
        convert(bytes(good))
