"""The packed forward on a CUDA device against diffusers' own; skipped without one."""

import copy

import pytest
import torch
from diffusers import ZImageTransformer2DModel

from inference.adapter_linear import RowAdapters
from inference.packed import PackedTransformer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

# (height and width in tokens, tokens of the caption, time): below and above what each kernel is for
MIX = [(4, 6, 9, 0.1), (16, 16, 40, 0.5), (16, 16, 30, 0.7), (32, 34, 20, 0.9)]
LARGE = [(32, 32, 20, 0.2), (32, 32, 20, 0.6), (40, 32, 20, 0.9)]
SMALL = [(8, 8, 9, 0.3), (8, 10, 40, 0.8)]


@pytest.fixture(scope="module")
def transformer() -> ZImageTransformer2DModel:
    torch.manual_seed(0)
    model = ZImageTransformer2DModel(
        dim=256,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=64,
        axes_dims=[32, 48, 48],
        axes_lens=[1536, 512, 512],
    ).cuda()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return model.eval().requires_grad_(False)


def adapter(transformer, seed: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator("cuda").manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return 0.1 * torch.randn(shape, generator=generator, device="cuda")

    rank = 4 * (seed + 1)
    return {
        path: (normal(rank, module.in_features), normal(module.out_features, rank))
        for path, module in transformer.named_modules()
        if isinstance(module, torch.nn.Linear) and path.startswith("layers.") and "adaLN" not in path
    }


@pytest.fixture(scope="module")
def packed(transformer) -> PackedTransformer:
    half = copy.deepcopy(transformer).to(torch.bfloat16)
    packed = PackedTransformer(half, adapter_slots=2, rank_max=8, merged_slots=1)
    for slot in range(2):
        matrices = {path: (a.bfloat16(), b.bfloat16()) for path, (a, b) in adapter(transformer, slot).items()}
        for linear in packed.adapter_linears():
            linear.load(slot, matrices)
    for linear in packed.adapter_linears():
        linear.merge(0, ((1, 0.5),))
    return packed


def with_adapter(transformer, slot: int, scale: float) -> ZImageTransformer2DModel:
    changed = copy.deepcopy(transformer)
    for path, (a, b) in adapter(transformer, slot).items():
        changed.get_submodule(path).weight += scale * b @ a
    return changed


def inputs_of(shape, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator("cuda").manual_seed(seed)
    height, width, caption, _ = shape
    latents = torch.randn(16, 2 * height, 2 * width, generator=generator, device="cuda")
    return latents, torch.randn(caption, 64, generator=generator, device="cuda")


def forward(packed, shapes, adapters) -> list[torch.Tensor]:
    inputs = [inputs_of(shape, seed) for seed, shape in enumerate(shapes)]
    images = [
        packed.sequence(caption.bfloat16(), shape[0], shape[1], RowAdapters())
        for shape, (_, caption) in zip(shapes, inputs, strict=True)
    ]
    return packed([latents for latents, _ in inputs], [shape[3] for shape in shapes], images, adapters)


def assert_close(ours, transformers, shapes) -> None:
    """Compare within the rounding of bfloat16: diffusers' own bfloat16 is as far from its float32."""
    for seed, (output, model, shape) in enumerate(zip(ours, transformers, shapes, strict=True)):
        latents, caption = inputs_of(shape, seed)
        time = torch.tensor([shape[3]], device="cuda")
        (theirs,) = model([latents[:, None]], time, [caption], return_dict=False)[0]
        assert (output.float() - theirs[:, 0]).norm() < 0.02 * theirs.norm()


@pytest.mark.parametrize("shapes", [MIX, LARGE, SMALL], ids=["mix", "large", "small"])
def test_every_row_is_what_diffusers_makes_of_it_alone(transformer, packed, shapes):
    plain = [RowAdapters()] * len(shapes)
    assert_close(forward(packed, shapes, plain), [transformer] * len(shapes), shapes)


def test_rows_use_their_own_adapters_unmerged_and_merged(transformer, packed):
    shapes = [MIX[1], MIX[1], MIX[2], MIX[3]]
    adapters = [RowAdapters(((0, 1.0),)), RowAdapters(((1, 0.5),)), RowAdapters(merged=0), RowAdapters()]
    first, second = with_adapter(transformer, 0, 1.0), with_adapter(transformer, 1, 0.5)
    assert_close(forward(packed, shapes, adapters), [first, second, second, transformer], shapes)


def test_a_small_step_from_a_recorded_graph_is_what_it_is_without(transformer, packed):
    plain = [RowAdapters()] * 2
    recorded = copy.copy(packed)
    recorded.record(packed.sequence(inputs_of(SMALL[0], 0)[1].bfloat16(), 8, 8, RowAdapters()))
    for shapes in (SMALL, MIX[1:3], [MIX[0]]):  # again smaller than the one before
        assert_close(forward(recorded, shapes, plain[: len(shapes)]), [transformer] * len(shapes), shapes)
