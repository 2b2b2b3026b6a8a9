"""LoRA files are accepted or refused with a code, and change the model as diffusers' own adapters do."""

import pytest
import torch
from diffusers import ZImagePipeline
from safetensors.torch import save_file

from inference.adapter_linear import RowAdapters
from inference.adapters import load_adapter
from inference.errors import AdapterRejected

MODULE = "layers.0.attention.to_q"


@pytest.fixture
def forward(model):
    """The transformer's output for one fixed input, with the given adapters."""

    def forward(*adapters):
        for slot, (table, _) in enumerate(adapters):
            model.load(slot, table)
        weights = RowAdapters(tuple((slot, scale) for slot, (_, scale) in enumerate(adapters)))
        (caption,) = model.encode([model.prompt_ids("a red circle")])
        sequence, latents = model.sequence(caption, 64, 64, weights), model.initial_latents(3, 64, 64)
        (velocity,) = model.velocity([latents], [0.6], [sequence], [weights])
        return velocity

    return forward


def in_diffusers(checkpoint, adapters, model) -> torch.Tensor:
    """Compute the same with `load_lora_weights` and PEFT, with alpha multiplied into B as in diffusers' files."""
    pipe = ZImagePipeline.from_pretrained(checkpoint)
    for i, (tensors, _) in enumerate(adapters):
        state = {
            f"transformer.{key}": tensor * (8.0 / 4 if ".lora_B" in key else 1)
            for key, tensor in tensors.items()
            if not key.endswith(".alpha")
        }
        pipe.load_lora_weights(state, adapter_name=f"a{i}")
    pipe.set_adapters([f"a{i}" for i in range(len(adapters))], [scale for _, scale in adapters])
    latents, (caption,) = model.initial_latents(3, 64, 64), model.encode([model.prompt_ids("a red circle")])
    timestep = (1000 - torch.tensor([0.6]) * 1000) / 1000
    with torch.inference_mode():
        (output,) = pipe.transformer([latents.unsqueeze(1)], timestep, [caption], return_dict=False)[0]
    return -output.squeeze(1)


def test_an_adapter_does_what_it_does_in_diffusers(model, checkpoint, load, forward, lora_tensors):
    tensors = lora_tensors(1)
    ours, theirs = forward((load(tensors), 0.7)), in_diffusers(checkpoint, [(tensors, 0.7)], model)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(ours, forward(), atol=0.01)


def test_two_adapters_add_up_as_they_do_in_diffusers(model, checkpoint, load, forward, lora_tensors):
    first, second = (lora_tensors(seed) for seed in (1, 2))
    ours = forward((load(first), 1.0), (load(second), 0.4))
    theirs = in_diffusers(checkpoint, [(first, 1.0), (second, 0.4)], model)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_row_without_adapters_is_unchanged_by_those_in_the_adapter_slots(load, forward, lora_tensors):
    before = forward()
    first, again = forward((load(lora_tensors(1)), 1.0)), forward((load(lora_tensors(1)), 1.0))
    assert torch.equal(first, again)
    assert torch.equal(forward(), before)


def test_the_same_adapter_twice_is_the_adapter_at_twice_the_scale(model, load, forward, lora_tensors):
    adapter = load(lora_tensors(1))
    twice, double = forward((adapter, 0.5), (adapter, 0.5)), forward((adapter, 1.0))
    torch.testing.assert_close(twice, double, atol=1e-4, rtol=1e-4)


def test_scale_zero_is_no_adapter(model, load, forward, lora_tensors):
    adapter = load(lora_tensors(1))
    torch.testing.assert_close(forward((adapter, 0.0)), forward())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("alpha_shape", [[], [1]])
def test_every_common_precision_loads(load, dtype, alpha_shape):
    tensors = one_module(dtype=dtype)
    tensors[f"{MODULE}.alpha"] = torch.full(alpha_shape, 2.0)
    ((a, b),) = load(tensors).on("cpu").values()
    assert (a.dtype, b.dtype) == (torch.float32, torch.float32)
    assert b.unique().tolist() == [0.5]  # ones, times alpha / rank


def one_module(dtype: torch.dtype = torch.float32, **changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """A minimal good file, with some of its tensors replaced, or left out when None."""
    tensors = {
        f"{MODULE}.lora_A.weight": torch.ones(4, 64, dtype=dtype),
        f"{MODULE}.lora_B.weight": torch.ones(64, 4, dtype=dtype),
        f"{MODULE}.alpha": torch.tensor(4.0),
    }
    merged = {**tensors, **{f"{MODULE}.{key}" if "/" not in key else key[1:]: t for key, t in changes.items()}}
    return {key: tensor for key, tensor in merged.items() if tensor is not None}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"lora_A.weight": None}, "adapter_weight_missing"),
        ({"alpha": None}, "adapter_weight_missing"),
        ({"dora_scale": torch.ones(64)}, "adapter_key_unknown"),
        ({"/layers.0.attention.to_q.lora_down.weight": torch.ones(4, 64)}, "adapter_key_unknown"),
        ({"lora_A.weight": torch.ones(4, 65)}, "adapter_shape"),
        ({"lora_B.weight": torch.ones(64, 5)}, "adapter_shape"),
        ({"lora_A.weight": torch.ones(4)}, "adapter_shape"),
        ({"alpha": torch.ones(2)}, "adapter_shape"),
        ({"lora_A.weight": torch.ones(0, 64), "lora_B.weight": torch.ones(64, 0)}, "adapter_shape"),
        ({"lora_A.weight": torch.ones(129, 64), "lora_B.weight": torch.ones(64, 129)}, "adapter_rank_unsupported"),
        ({"lora_A.weight": torch.full((4, 64), float("nan"))}, "adapter_weight_not_finite"),
        ({"alpha": torch.tensor(float("inf"))}, "adapter_weight_not_finite"),
    ],
)
def test_a_file_that_is_not_canonical_is_refused(load, changes, code):
    with pytest.raises(AdapterRejected) as refused:
        load(one_module(**changes))
    assert refused.value.code == code
    assert not refused.value.retryable


@pytest.mark.parametrize("module", ["layers.9.attention.to_q", "layers.0.attention.norm_q", "layers.0"])
def test_a_module_that_the_model_lacks_is_refused(load, module):
    tensors = {key.replace(MODULE, module): tensor for key, tensor in one_module().items()}
    with pytest.raises(AdapterRejected) as refused:
        load(tensors)
    assert refused.value.code == "adapter_module_unknown"


@pytest.mark.parametrize(("content", "code"), [(b"", "unreadable"), (b"x" * 100, "unreadable"), (None, "empty")])
def test_a_file_that_is_no_safetensors_is_refused(model, tmp_path, content, code):
    path = tmp_path / "bad.safetensors"
    save_file({}, path) if content is None else path.write_bytes(content)
    with pytest.raises(AdapterRejected) as refused:
        load_adapter(path, model.targets, sha256="")
    assert refused.value.code == f"adapter_{code}"
