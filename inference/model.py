"""The parts of a diffusers Z-Image pipeline as separate operations, so that an engine can step many images at once.

The work of `ZImagePipeline.__call__` for one image (guidance 0) is split into `prompt_ids`, `encode`, `sequence`,
`initial_latents`, `sigmas`, `velocity` and `decode`. An image made with them equals the pipeline's for a
`torch.Generator("cpu")` with the same seed.
"""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import diffusers
import structlog
import torch
import transformers
from diffusers import DiffusionPipeline, ZImagePipeline
from diffusers.pipelines.z_image.pipeline_z_image import calculate_shift, get_default_z_image_sigmas
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from inference.adapter_linear import RowAdapters, ScaledSlots
from inference.adapters import AdapterTable, AdapterTargets
from inference.errors import ImageNotFinite, OutOfMemory, PromptTooLong, SizeUnsupported
from inference.kernels import BlockKernels, compile_dynamic
from inference.packed import PackedTransformer
from inference.packing import ImageSequence, padded_tokens
from inference.precision import Precision, quantize
from inference.preview import PreviewMap
from inference.residency import NEVER_MERGE

PROMPT_TOKENS_MAX = 512  # the pipeline would silently truncate longer prompts

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterLimits:
    """The adapters that a worker has memory for: adapter slots, the largest rank, and bytes of merged weights."""

    adapter_slots: int = 16
    rank_max: int = 128
    merged_bytes: int = 2 * 1024**3


class LoadedModel:
    """A model on its device.

    Any thread may call `prompt_ids` and `step_...`. Of the rest, one thread may call `velocity`, `merge` and `preview`
    while another, in its own `stream`, calls all others. Operations raise `OutOfMemory` when the device is full.
    """

    def __init__(self, pipe: Any, *, precision: Precision = "none", limits: AdapterLimits | None = None) -> None:
        """Take over the transformer of `pipe`, a `ZImagePipeline` on its device (diffusers has no types)."""
        transformer, limits = pipe.transformer, limits or AdapterLimits()
        self.pipe = pipe
        self.device: torch.device = transformer.device
        self.dtype: torch.dtype = transformer.dtype
        # Two threads get more done than one on a GPU only: a CPU's one thread already uses every core.
        self.concurrent = self.device.type == "cuda"
        self.adapter_slots = limits.adapter_slots
        self.targets = AdapterTargets.of(transformer, rank_max=limits.rank_max)
        mergeable = sum(height * width for height, width in self.targets.shapes.values()) * self.dtype.itemsize
        # Merged into rounded weights, an adapter would be rounded away.
        self.merged_slots = min(limits.adapter_slots, limits.merged_bytes // mergeable) if precision == "none" else 0
        self._channels: int = transformer.in_channels
        self._sides_max: list[int] = transformer.axes_lens[1:]
        self._packed = PackedTransformer(
            transformer,
            adapter_slots=limits.adapter_slots,
            rank_max=limits.rank_max,
            merged_slots=self.merged_slots,
            # On a CPU, compiling would need a compiler and half a minute at every start.
            kernels=BlockKernels.compiled() if self.device.type == "cuda" else None,
        )
        pipe.transformer = None  # `_packed` owns its weights now
        pipe.vae.to(memory_format=torch.channels_last)  # makes its convolutions, and so decoding, a third faster
        if self.device.type == "cuda":
            # Uncompiled, its norms alone take three times as long as its convolutions (H200).
            pipe.vae.decoder.forward = compile_dynamic(pipe.vae.decoder.forward, sizes=[(0, 2), (0, 3)])
        # Of high priority: an image needs little work before its first step, and the steps of others are long.
        # One stream for the process's life: memory that a stream frees is reused by that stream alone.
        self._stream = torch.cuda.Stream(self.device, priority=-1) if self.device.type == "cuda" else None
        self._linears = self._packed.adapter_linears()
        quantize(self._packed, precision)
        self._tokenizer_lock = threading.Lock()  # tokenizers are not thread-safe
        self.token_px: int = pipe.vae_scale_factor * 2  # the side of one token in pixels
        # Set by `calibration.warm_up`.
        self.costs = NEVER_MERGE
        self.work_per_second = float("inf")
        self.tokens_max = sys.maxsize

    @property
    def device_name(self) -> str:
        """The device as a slug, such as "nvidia-h200" or "cpu"."""
        if self.device.type != "cuda":
            return self.device.type
        return "-".join(torch.cuda.get_device_name(self.device).lower().split())

    @property
    def weight_bytes(self) -> int:
        """Bytes of the transformer's weights, without the adapter banks."""
        return sum(_bytes(weight) for weight in self._packed.parameters())

    def _latent_tokens(self, width: int, height: int) -> int:
        """Return the tokens of an image of this size in pixels, without padding. Raises `SizeUnsupported`."""
        px = self.token_px
        height_max, width_max = (side * px for side in self._sides_max)
        if width % px or height % px or not 0 < height <= height_max or not 0 < width <= width_max:
            limit = f"{px} up to {width_max} x {height_max}"
            raise SizeUnsupported(f"{width} x {height} is not possible: sides must be multiples of {limit}")
        return (width // px) * (height // px)

    def step_tokens(self, width: int, height: int, prompt_tokens: int) -> int:
        """Return the tokens of a step of an image of this size in pixels. Raises `SizeUnsupported`."""
        return padded_tokens(self._latent_tokens(width, height)) + padded_tokens(prompt_tokens)

    def step_work(self, width: int, height: int, prompt_tokens: int) -> float:
        """Return a step's floating point operations, by which device time is split. Raises `SizeUnsupported`."""
        return self._packed.step_flops(padded_tokens(self._latent_tokens(width, height)), padded_tokens(prompt_tokens))

    def prompt_ids(self, prompt: str) -> list[int]:
        """Tokenize the prompt in the chat template. Raises `PromptTooLong`."""
        messages = [{"role": "user", "content": prompt}]
        with self._tokenizer_lock:
            text = self.pipe.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=True
            )
            ids: list[int] = self.pipe.tokenizer(text).input_ids
        if len(ids) > PROMPT_TOKENS_MAX:
            raise PromptTooLong(f"the prompt has {len(ids)} tokens; the model reads {PROMPT_TOKENS_MAX}")
        return ids

    @torch.inference_mode()
    def encode(self, prompts: Sequence[list[int]]) -> list[Tensor]:
        """Encode tokenized prompts to captions [tokens, dim], each of its own length.

        No mask is needed: the encoder is causal, and padding comes after a prompt's last token.
        """
        ids = pad_sequence([torch.tensor(prompt) for prompt in prompts], batch_first=True).to(self.device)
        with self._memory_errors():
            hidden = self.pipe.text_encoder(input_ids=ids, output_hidden_states=True).hidden_states[-2]
        return [row[: len(prompt)].clone() for row, prompt in zip(hidden, prompts, strict=True)]

    @torch.inference_mode()
    def load(self, adapter_slot: int, adapter: AdapterTable) -> None:
        """Copy an adapter into an adapter slot that no row uses."""
        with self._memory_errors():
            matrices = adapter.on(self.device)
            for linear in self._linears:
                linear.load(adapter_slot, matrices)

    @torch.inference_mode()
    def merge(self, merged_slot: int, scaled_slots: ScaledSlots) -> None:
        """Merge loaded adapters into a merged slot that no row uses."""
        with self._memory_errors():
            for linear in self._linears:
                linear.merge(merged_slot, scaled_slots)

    def sequence(self, caption: Tensor, width: int, height: int, adapters: RowAdapters) -> ImageSequence:
        """Compute the inputs that all steps of an image share. `width` and `height` are in pixels."""
        with self._memory_errors():
            return self._packed.sequence(caption, height // self.token_px, width // self.token_px, adapters)

    def initial_latents(self, seed: int, width: int, height: int) -> Tensor:
        """Generate noise, float32 [channels, height / 8, width / 8], on the CPU: a seed gives the same everywhere."""
        rows, columns = 2 * height // self.token_px, 2 * width // self.token_px
        shape = (1, self._channels, rows, columns)
        generator = torch.Generator("cpu").manual_seed(seed)
        return torch.randn(shape, generator=generator, dtype=torch.float32)[0].to(self.device)

    def sigmas(self, steps: int, width: int, height: int) -> list[float]:
        """Return the `steps + 1` noise levels from 1 to 0."""
        config = self.pipe.scheduler.config
        shift = calculate_shift(
            self._latent_tokens(width, height),
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", 1.15),
        )
        scheduler = type(self.pipe.scheduler).from_config(config)  # a new one, because schedulers have state
        scheduler.set_timesteps(sigmas=get_default_z_image_sigmas(steps), mu=shift)
        return [float(sigma) for sigma in scheduler.sigmas]

    def velocity(
        self,
        latents: Sequence[Tensor],
        sigmas: Sequence[float],
        sequences: Sequence[ImageSequence],
        adapters: Sequence[RowAdapters],
    ) -> list[Tensor]:
        """Return d(latents)/d(sigma) of each image at its own noise level: float32, in the shapes of `latents`."""
        with self._memory_errors():
            outputs = self._packed(latents, [1 - sigma for sigma in sigmas], sequences, adapters)
        return [-output.float() for output in outputs]

    @torch.inference_mode()
    def decode(self, latents: Sequence[Tensor]) -> list[Image.Image | ImageNotFinite]:
        """Decode finished latents, all of one size, to RGB pictures; to an error where they are not finite."""
        vae = self.pipe.vae
        scaled = torch.stack(list(latents)).to(vae.dtype) / vae.config.scaling_factor + vae.config.shift_factor
        finite = scaled.flatten(1).isfinite().all(1).tolist()
        with self._memory_errors():
            # A GPU gains nothing from a batch, and the decoder would be compiled again for each batch size.
            parts = scaled.nan_to_num(0, 0, 0).split(1 if self.device.type == "cuda" else len(scaled))
            pixels = torch.cat([vae.decode(part, return_dict=False)[0] for part in parts]).float()
        pictures = (pixels / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)
        images = [Image.fromarray(picture) for picture in pictures.cpu().numpy()]
        error = ImageNotFinite("the image's values are not finite; try its adapters at smaller scales")
        return [image if is_finite else error for image, is_finite in zip(images, finite, strict=True)]

    @torch.inference_mode()
    def preview(self, latents: Tensor) -> Image.Image:
        """Make a small, rough picture of `Row.denoised` without the decoder: one pixel for each 8 x 8."""
        return self._preview_map.picture(latents)

    @cached_property
    def _preview_map(self) -> PreviewMap:
        return PreviewMap(self.pipe.vae)

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Run the block's work on a stream of its own, beside the work of other threads."""
        with torch.cuda.stream(self._stream):
            yield

    def synchronize(self) -> None:
        """Wait until the device has finished all work that this thread launched."""
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()

    def record_graphs(self, sequence: ImageSequence) -> None:
        """Record CUDA graphs for small steps on a GPU; any image's sequence gives the shapes."""
        if self.device.type == "cuda":
            self._packed.record(sequence)

    @contextmanager
    def _memory_errors(self) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise OutOfMemory("the device's memory is too small for this work") from error


def load_model(
    ref: str, *, name: str, precision: Precision = "none", limits: AdapterLimits | None = None
) -> LoadedModel:
    """Load a local folder or a hub id (`HF_HUB_OFFLINE` is respected) on the best available device.

    The dtype is bfloat16 on CUDA and float32 elsewhere. Raises `OSError` if there is no such model and `TypeError` if
    it is not a Z-Image.
    """
    started = time.monotonic()
    # The libraries show no progress bars, and their warnings go through the root logger.
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.disable_progress_bar()
        library.disable_default_handler()
        library.enable_propagation()
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    pipe: Any = DiffusionPipeline.from_pretrained(ref, dtype=dtype)
    if not issubclass(type(pipe), ZImagePipeline):
        raise TypeError(f"{name} is a {type(pipe).__name__}, not a ZImagePipeline")
    model = LoadedModel(pipe.to(device), precision=precision, limits=limits)
    log.info(
        "model_loaded",
        model_name=name,
        device=model.device_name,
        dtype=str(dtype).removeprefix("torch."),
        precision=precision,
        duration_seconds=round(time.monotonic() - started, 3),
    )
    return model


def _bytes(weight: Tensor) -> int:
    """Return a weight's bytes; a quantised weight is a tensor made of other tensors."""
    if hasattr(weight, "__tensor_flatten__"):
        return sum(_bytes(getattr(weight, name)) for name in weight.__tensor_flatten__()[0])
    return weight.nbytes
