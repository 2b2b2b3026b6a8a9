"""The packed forward equals diffusers' own of each row alone, with PEFT's layers for the adapters."""

import copy
import shutil

import pytest
import torch
from diffusers import ZImageTransformer2DModel
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig

from inference.adapter_linear import RowAdapters
from inference.kernels import BlockKernels
from inference.packed import PackedTransformer

RANKS = (1, 3, 8, 4)  # of the adapters, by adapter slot
LAYERS = "attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0", "w1", "w2", "w3"
# The adapters change different layers; the last one changes every linear layer.
TARGETS = (("to_q",), ("to_v", "w1", "w2"), LAYERS, None)


@pytest.fixture(scope="module")
def transformer(new_transformer) -> ZImageTransformer2DModel:
    torch.manual_seed(0)
    model = new_transformer()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return model.eval().requires_grad_(False)


def linears(model) -> dict[str, torch.nn.Linear]:
    return {path: module for path, module in model.named_modules() if isinstance(module, torch.nn.Linear)}


def matrices(model, slot: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A and B of the adapter in this slot, from a seed of its own."""
    generator = torch.Generator().manual_seed(slot)
    targets, rank = TARGETS[slot], RANKS[slot]
    return {
        path: (
            0.2 * torch.randn(rank, module.in_features, generator=generator),
            0.2 * torch.randn(module.out_features, rank, generator=generator),
        )
        for path, module in linears(model).items()
        if targets is None or (path.endswith(tuple(targets)) and path.startswith("layers."))
    }


@pytest.fixture(scope="module")
def packed(transformer) -> PackedTransformer:
    packed = PackedTransformer(copy.deepcopy(transformer), adapter_slots=len(RANKS), rank_max=8, merged_slots=2)
    for slot in range(len(RANKS)):
        for linear in packed.adapter_linears():
            linear.load(slot, matrices(transformer, slot))
    return packed


@pytest.fixture(scope="module")
def peft(transformer) -> ZImageTransformer2DModel:
    """The oracle: diffusers' forward with an adapter of PEFT's for each slot."""
    model = copy.deepcopy(transformer)
    for slot, rank in enumerate(RANKS):
        table = matrices(transformer, slot)
        model.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(table)), adapter_name=str(slot))
        for path, (a, b) in table.items():
            layer = model.get_submodule(path)
            layer.lora_A[str(slot)].weight.data.copy_(a)
            layer.lora_B[str(slot)].weight.data.copy_(b)
    return model.eval().requires_grad_(False)


def forward_of_row(model, latents, time, embedding, scaled_slots) -> torch.Tensor:
    """Compute one row with diffusers. PEFT leaves out an adapter of scale 0."""
    if scaled_slots:
        model.enable_adapters()
        model.set_adapters([str(slot) for slot, _ in scaled_slots], [scale for _, scale in scaled_slots])
    elif hasattr(model, "peft_config"):
        model.disable_adapters()
    (output,) = model([latents[:, None]], torch.tensor([time]), [embedding], return_dict=False)[0]
    return output[:, 0]


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


rows = st.fixed_dictionaries(
    {
        "height": st.integers(1, 12),
        "width": st.integers(1, 12),
        "caption": st.integers(1, 70),
        "time": st.floats(0, 1, width=32),
        "adapters": st.lists(
            st.tuples(st.integers(0, len(RANKS) - 1), st.floats(-2, 2, width=32)), max_size=3, unique_by=lambda u: u[0]
        ).map(tuple),
        "seed": st.integers(0, 99),
    }
)


def inputs_of(row) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(row["seed"])
    latents = torch.randn(16, 2 * row["height"], 2 * row["width"], generator=generator)
    return latents, torch.randn(row["caption"], 48, generator=generator)


def forward(packed, rows, adapters=None) -> list[torch.Tensor]:
    adapters = adapters or [RowAdapters(row["adapters"]) for row in rows]
    inputs = [inputs_of(row) for row in rows]
    images = [
        packed.sequence(embedding, row["height"], row["width"], RowAdapters(row["adapters"]))
        for row, (_, embedding) in zip(rows, inputs, strict=True)
    ]
    return packed([latents for latents, _ in inputs], [row["time"] for row in rows], images, adapters)


@given(batch=st.lists(rows, min_size=1, max_size=5))
def test_every_row_of_any_mix_is_what_diffusers_makes_of_it_alone(packed, peft, batch):
    for ours, row in zip(forward(packed, batch), batch, strict=True):
        latents, embedding = inputs_of(row)
        assert_close(ours, forward_of_row(peft, latents, row["time"], embedding, row["adapters"]))


def test_rows_on_merged_weights_are_what_they_are_unmerged(packed, peft):
    batch = [
        {"height": 4, "width": 6, "caption": 9, "time": 0.3, "adapters": scaled_slots, "seed": i}
        for i, scaled_slots in enumerate([((2, 1.0),), (), ((1, 0.5), (3, -0.7)), ((2, 1.0),), ((0, 2.0),)])
    ]
    for merged_slot, row in enumerate((batch[0], batch[2])):
        for linear in packed.adapter_linears():
            linear.merge(merged_slot, row["adapters"])
    weights = [
        RowAdapters(merged=0),
        RowAdapters(),
        RowAdapters(merged=1),
        RowAdapters(merged=0),
        RowAdapters(((0, 2.0),)),
    ]
    for ours, row in zip(forward(packed, batch, weights), batch, strict=True):
        latents, embedding = inputs_of(row)
        assert_close(ours, forward_of_row(peft, latents, row["time"], embedding, row["adapters"]))


def test_merging_again_begins_from_the_weights_as_they_were_loaded(packed, transformer):
    row = {"height": 4, "width": 4, "caption": 5, "time": 0.5, "adapters": (), "seed": 1}
    (before,) = forward(packed, [row])
    for linear in packed.adapter_linears():
        for scaled_slots in (((2, 1.0),), ((3, 1.5),), ((2, 1.0),)):
            linear.merge(0, scaled_slots)
        linear.merge(1, ((2, 1.0),))
    first, second = forward(packed, [row, row], [RowAdapters(merged=0), RowAdapters(merged=1)])
    assert torch.equal(first, forward(packed, [row, row], [RowAdapters(merged=1), RowAdapters(merged=0)])[1])
    torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-5)
    assert torch.equal(before, forward(packed, [row])[0])


def test_rows_of_one_length_share_products_whatever_the_ranks_of_their_adapters(packed, peft):
    scaled_slots = [((0, 1.0),), ((2, -0.5),), ((1, 1.0), (3, 0.5)), (), ((3, 1.0),), ((2, 2.0),)]
    batch = [
        {"height": 4, "width": 6, "caption": 9, "time": 0.3, "adapters": one, "seed": i}
        for i, one in enumerate(scaled_slots)
    ]
    for ours, row in zip(forward(packed, batch), batch, strict=True):
        latents, embedding = inputs_of(row)
        assert_close(ours, forward_of_row(peft, latents, row["time"], embedding, row["adapters"]))


def test_an_adapter_slot_filled_again_holds_nothing_of_its_former_adapter(transformer):
    row = {"height": 4, "width": 4, "caption": 5, "time": 0.5, "adapters": ((0, 1.0),), "seed": 1}
    beside = {**row, "adapters": ((1, 1.0),)}  # of a higher rank

    def output_of(*fillings: int) -> torch.Tensor:
        packed = PackedTransformer(copy.deepcopy(transformer), adapter_slots=2, rank_max=8, merged_slots=0)
        for slot, filling in ((1, 2), *((0, filling) for filling in fillings)):
            for linear in packed.adapter_linears():
                linear.load(slot, matrices(transformer, filling))
        return torch.cat([forward(packed, [row])[0], forward(packed, [row, beside])[0]])

    assert torch.equal(output_of(3, 2, 1), output_of(1))


def test_the_shared_inputs_are_computed_once_per_image(packed, peft):
    row = {"height": 5, "width": 7, "caption": 33, "time": 0.0, "adapters": ((3, 1.0),), "seed": 4}
    latents, embedding = inputs_of(row)
    image = packed.sequence(embedding, 5, 7, RowAdapters(row["adapters"]))
    for time in (0.0, 0.4, 1.0):
        (ours,) = packed([latents], [time], [image], [RowAdapters(row["adapters"])])
        assert_close(ours, forward_of_row(peft, latents, time, embedding, row["adapters"]))


@pytest.mark.skipif(not shutil.which("g++"), reason="compiling for a CPU takes a C++ compiler")
def test_compiled_kernels_compute_the_same_for_any_number_of_tokens(transformer, packed):
    compiled = PackedTransformer(
        copy.deepcopy(transformer), adapter_slots=1, rank_max=8, merged_slots=0, kernels=BlockKernels.compiled()
    )
    for height, caption in ((3, 5), (8, 40)):
        row = {"height": height, "width": 5, "caption": caption, "time": 0.3, "adapters": (), "seed": 1}
        (ours,), (theirs,) = forward(compiled, [row]), forward(packed, [row])
        assert_close(ours, theirs)


def test_the_work_of_a_step_is_that_of_its_products(packed):
    """Torch counts all but attention on a CPU. The uncounted part (time, embedding) is 5 % of so small a model."""
    from torch.utils.flop_counter import FlopCounterMode

    row = {"height": 8, "width": 8, "caption": 32, "time": 0.5, "adapters": (), "seed": 1}
    image = packed.sequence(inputs_of(row)[1], 8, 8, RowAdapters())
    with FlopCounterMode(display=False) as counter:
        packed([inputs_of(row)[0]], [0.5], [image], [RowAdapters()])
    attention = 4 * 64 * (64**2 + 2 * 96**2)
    assert packed.step_flops(64, 32) == pytest.approx(counter.get_total_flops() + attention, rel=0.1)
