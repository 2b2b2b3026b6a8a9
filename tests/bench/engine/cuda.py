"""The full-size configuration of Z-Image-Turbo with random weights, on a CUDA device: nothing to download."""

import statistics
import time
from typing import Any, Protocol

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from transformers import AutoTokenizer, Qwen3Config, Qwen3Model

from inference.demo_model import CHECKPOINT_DIR
from inference.model import LoadedModel, Room
from tests.bench.engine.measures import adapter_tax, join_delay, slot_load
from tests.bench.engine.systems import Ours
from tests.bench.engine.workload import STEPS, Ask, adapter_table


class Add(Protocol):
    def __call__(
        self, name: str, value: float, *, at_least: float | None = None, at_most: float | None = None
    ) -> None: ...


FULL: dict[str, Any] = {"dim": 3840, "n_layers": 30, "n_refiner_layers": 2, "n_heads": 30, "cap_feat_dim": 2560}
TINY: dict[str, Any] = {"dim": 256, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 2, "cap_feat_dim": 64}


VAE_CHANNELS = (128, 256, 512, 512)
TINY_VAE_CHANNELS = (32, 32, 32, 32)


def random_model(
    shape: dict[str, Any], device: str, dtype: torch.dtype, vae_channels: tuple[int, ...] = VAE_CHANNELS
) -> LoadedModel:
    """A model of this shape; its text encoder is a small one, as its work is not what is measured."""
    torch.manual_seed(0)
    with torch.device(device):
        torch.set_default_dtype(dtype)
        try:
            transformer = ZImageTransformer2DModel(
                **shape, n_kv_heads=shape["n_heads"], axes_dims=[32, 48, 48], axes_lens=[1536, 512, 512]
            )
            vae = AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=vae_channels,
                layers_per_block=2,
                latent_channels=16,
                use_quant_conv=False,
                use_post_quant_conv=False,
                scaling_factor=0.3611,
                shift_factor=0.1159,
            )
            tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT_DIR / "tokenizer")
            text = Qwen3Config(
                vocab_size=len(tokenizer),
                hidden_size=shape["cap_feat_dim"],
                num_hidden_layers=2,
                num_attention_heads=8,
                num_key_value_heads=8,
                head_dim=shape["cap_feat_dim"] // 8,
                intermediate_size=2 * shape["cap_feat_dim"],
            )
            text_encoder = Qwen3Model(text)
        finally:
            torch.set_default_dtype(torch.float32)
    pipe = ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        transformer=transformer.eval().requires_grad_(False),
    )
    # Copies of the weights in half of the card, which leaves the other half to the model and its steps.
    merged_bytes = torch.cuda.mem_get_info()[1] // 2 if device == "cuda" else 1024**3
    room = Room(slots=8, rank_max=32, merged_bytes=merged_bytes)
    return LoadedModel(pipe, "random", room=room)


def matmul_rate(device: str, dtype: torch.dtype, size: int) -> float:
    """Floating point operations per second of a large square product, the card's own best of ten."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        begun = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best


def measure(
    add: Add,
    *,
    shape: dict[str, Any] = FULL,
    vae_channels: tuple[int, ...] = VAE_CHANNELS,
    device: str = "cuda",
    dtype: torch.dtype = torch.bfloat16,
    sizes: tuple[int, int] = (1024, 512),
    count: int = 32,
) -> None:
    """Report the figures of the larger and the smaller size."""
    model = random_model(shape, device, dtype, vae_channels)
    model.warm_up()
    tables = {number: adapter_table(model.targets, number) for number in range(8)}
    large, small = sizes
    rate = matmul_rate(device, dtype, 8192 if device == "cuda" else 512)

    def run(px: int, count: int) -> float:
        asks = [Ask(0.0, "acme", "a red circle", px, seed, adapter=None) for seed in range(count)]
        return Ours(model).run(asks, tables).seconds

    run(large, 1)
    alone = statistics.median(run(large, 1) for _ in range(5))
    add(f"cuda_{large}_alone_s", alone, at_most=0.8)
    for px, target in ((large, 1.25), (small, 4.5)):
        seconds = run(px, count)
        add(f"cuda_{px}_images_per_s", count / seconds, at_least=target)
        add(f"cuda_{px}_flop_utilisation", count * STEPS * model.step_work(px, px, 20) / seconds / rate)
    add("cuda_matmul_tflops", rate / 1e12)
    unmerged, chosen = adapter_tax(model, tables, rows=8, px=small, rounds=9)
    add("cuda_adapter_tax_8", chosen, at_most=15)
    add("cuda_adapter_tax_8_unmerged", unmerged, at_most=15)
    add("cuda_adapter_to_slot_ms", slot_load(model, tables), at_most=10)
    add("cuda_join_delay_steps", join_delay(model, tables, trials=5), at_most=1.2)
