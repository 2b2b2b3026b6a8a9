"""The full-size configuration of Z-Image-Turbo with random weights, on a CUDA device: nothing to download."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from transformers import AutoTokenizer, Qwen3Config, Qwen3Model

from inference.adapter_linear import RowAdapters
from inference.calibration import warm_up
from inference.demo_model import CHECKPOINT_DIR
from inference.model import AdapterLimits, LoadedModel
from inference.precision import quantize
from tests.bench.engine.measures import adapter_slot_load, adapter_tax, join_delay, small_behind_large
from tests.bench.engine.systems import Ours
from tests.bench.engine.workload import STEPS, Ask, adapter_table
from tests.bench.report import Report

Add = Callable[..., None]  # `Report.add`
_PROMPT = "a red circle"
FULL: dict[str, Any] = {"dim": 3840, "n_layers": 30, "n_refiner_layers": 2, "n_heads": 30, "cap_feat_dim": 2560}
TINY: dict[str, Any] = {"dim": 256, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 2, "cap_feat_dim": 64}
VAE_CHANNELS = (128, 256, 512, 512)
TINY_VAE_CHANNELS = (32, 32, 32, 32)


def random_pipeline(
    shape: dict[str, Any], device: str, dtype: torch.dtype, vae_channels: tuple[int, ...] = VAE_CHANNELS
) -> ZImagePipeline:
    """A pipeline of this shape; its text encoder is a small one, as its work is not what is measured."""
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
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        transformer=transformer.eval().requires_grad_(False),
    )


def pipeline_seconds(pipe: ZImagePipeline, px: int, *, repeats: int) -> float:
    """Return the seconds of one image by diffusers, the median of all after one that is not counted."""
    times = []
    for seed in range(1 + repeats):
        begun = time.perf_counter()
        generator = torch.Generator("cpu").manual_seed(seed)
        pipe(
            _PROMPT, width=px, height=px, num_inference_steps=STEPS, guidance_scale=0.0, generator=generator
        )  # ends with the picture in the memory of the host
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])


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


def step_seconds(model: LoadedModel, px: int) -> float:
    """Return the seconds of a step of one row without adapters, the shortest of seven."""
    latents = [model.initial_latents(0, px, px)]
    (caption,) = model.encode([model.prompt_ids(_PROMPT)])
    sequences = [model.sequence(caption, px, px, RowAdapters())]
    times = []
    for _ in range(8):
        begun = time.perf_counter()
        model.velocity(latents, [0.5], sequences, [RowAdapters()])
        model.synchronize()
        times.append(time.perf_counter() - begun)
    return min(times[1:])


def measure(
    add: Add,
    *,
    shape: dict[str, Any] = FULL,
    vae_channels: tuple[int, ...] = VAE_CHANNELS,
    device: str = "cuda",
    dtype: torch.dtype = torch.bfloat16,
    sizes: tuple[int, int] = (1024, 512),
    count: int = 32,
    repeats_max: int = 9,
) -> None:
    """Report the figures of the larger and the smaller size, each the median of at most `repeats_max` measurements."""
    large, small = sizes
    pipe = random_pipeline(shape, device, dtype, vae_channels)
    pipe.set_progress_bar_config(disable=True)
    diffusers = {px: pipeline_seconds(pipe, px, repeats=min(3, repeats_max)) for px in sizes}
    # Copies of the weights in half of the card, which leaves the other half to the model and its steps.
    merged_bytes = torch.cuda.mem_get_info()[1] // 2 if device == "cuda" else 1024**3
    model = LoadedModel(pipe, limits=AdapterLimits(adapter_slots=8, rank_max=32, merged_bytes=merged_bytes))
    begun = time.perf_counter()
    warm_up(model)
    add("cuda_warm_up_s", time.perf_counter() - begun)
    tables = {number: adapter_table(model.targets, number) for number in range(8)}
    rate = matmul_rate(device, dtype, 8192 if device == "cuda" else 512)
    add("cuda_matmul_tflops", rate / 1e12)

    def run(px: int, count: int) -> float:
        asks = [Ask(0.0, "acme", _PROMPT, px, seed, adapter=None) for seed in range(count)]
        return Ours(model).run(asks, tables).seconds

    for px, target in ((large, 0.8), (small, None)):
        run(px, 1)
        single_seconds = statistics.median(run(px, 1) for _ in range(min(5, repeats_max)))
        add(f"cuda_{px}_alone_s", single_seconds, target_max=target)
        add(f"cuda_{px}_alone_vs_diffusers", diffusers[px] / single_seconds)
    for px, target in ((large, 1.25), (small, 4.5)):
        seconds = run(px, count)
        add(f"cuda_{px}_images_per_s", count / seconds, target_min=target)
        add(f"cuda_{px}_images_per_s_vs_diffusers", count / seconds * diffusers[px])
        add(f"cuda_{px}_flop_utilisation", count * STEPS * model.step_work(px, px, 20) / seconds / rate)
    unmerged, chosen = adapter_tax(model, tables, rows=8, px=small, rounds=repeats_max)
    add("cuda_adapter_tax_8", chosen, target_max=15)
    add("cuda_adapter_tax_8_unmerged", unmerged, target_max=15)
    adapter_slot_load(model, tables)
    add("cuda_adapter_to_slot_ms", adapter_slot_load(model, tables), target_max=10)
    add("cuda_join_delay_steps", join_delay(model, tables, trials=min(7, repeats_max)), target_max=1.2)
    fifo, ours = small_behind_large(model, tables, trials=min(3, repeats_max), large_px=large, small_px=small)
    add("cuda_small_behind_large_p95_speedup", fifo / ours, target_min=5)
    if device == "cuda":
        compare_kernels(add, model, px=small)


def compare_kernels(add: Add, model: LoadedModel, *, px: int) -> None:
    """Compare the time of a step with and without CUDA graphs and eight bits."""
    quarter = step_seconds(model, px // 2)
    packed, graphs = model._packed, model._packed._graphs
    packed._graphs = None
    add("cuda_step_without_graphs_vs_with", step_seconds(model, px // 2) / quarter)
    packed._graphs = graphs
    full = step_seconds(model, 2 * px)
    weights = [linear.weight for linear in packed.adapter_linears()]
    for precision in ("fp8", "int8"):
        quantize(packed, precision)
        add(f"cuda_step_vs_{precision}", full / step_seconds(model, 2 * px))
        for linear, weight in zip(packed.adapter_linears(), weights, strict=True):
            linear.weight, linear.product = weight, torch.nn.functional.linear


def main() -> None:
    """Measure the device, without what `make bench-engine` measures on the demo model."""
    begun = time.monotonic()
    report = Report()
    measure(report.add)
    report.publish(
        "Engine",
        "python -m tests.bench.engine.cuda",
        torch.cuda.get_device_name(),
        seconds=time.monotonic() - begun,
        quick=False,
    )


if __name__ == "__main__":
    main()
