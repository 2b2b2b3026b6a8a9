"""A diffusers Z-Image pipeline's components, taken apart so that an engine can step many images together.

What `ZImagePipeline.__call__` does for one image (guidance 0) is here as verbs: `prompt_ids`, `encode`, `sequence`,
`initial_latents`, `sigmas`, `velocity`, `decode`. An image made of them equals the pipeline's for a
`torch.Generator("cpu")` seeded alike.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from inference.adapters import AdapterTable, AdapterTargets
from inference.errors import ImageNotFinite, OutOfMemory, PromptTooLong, SizeUnsupported
from inference.packed import ImageSequence, PackedTransformer, Parts, compiled, filled
from inference.precision import Precision, quantize
from inference.residency import NEVER_MERGE, AdapterCosts
from inference.slots import RowAdapters, Used

PROMPT_TOKENS_MAX = 512  # the pipeline would cut longer prompts without a word
_WARM_UP_PX, _WARM_UP_RANK = 256, 16
_MEMORY_SHARE = 0.8  # of what is free once the model is loaded: for the tokens of a step

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a worker keeps room for: adapters in slots, their rank at most, and bytes of merged weights."""

    slots: int = 16
    rank_max: int = 128
    merged_bytes: int = 2 * 1024**3


class LoadedModel:
    """A model on its device.

    `prompt_ids` and what starts with `step_` are for any thread. Of the rest one thread may use `velocity`, `merge` and
    `preview` while another uses all the others, in its own `stream`.
    """

    def __init__(self, pipe: Any, name: str, *, precision: Precision = "none", room: Room | None = None) -> None:
        """`pipe` is a `ZImagePipeline` on its device, whose transformer is taken over; diffusers has no types."""
        transformer, room = pipe.transformer, room or Room()
        self.name = name
        self.pipe = pipe
        self.device: torch.device = transformer.device
        self.dtype: torch.dtype = transformer.dtype
        # Whether two threads get more done than one: a CPU's one thread already uses every core.
        self.concurrent = self.device.type == "cuda"
        self.slots = room.slots
        self.targets = AdapterTargets.of(transformer, rank_max=room.rank_max)
        mergeable = sum(height * width for height, width in self.targets.shapes.values()) * self.dtype.itemsize
        # Merged into rounded weights, an adapter would be rounded away.
        self.merged_max = min(room.slots, room.merged_bytes // mergeable) if precision == "none" else 0
        self._channels: int = transformer.in_channels
        self._sides_max: list[int] = transformer.axes_lens[1:]
        self._packed = PackedTransformer(
            transformer,
            slots=room.slots,
            rank_max=room.rank_max,
            merged_max=self.merged_max,
            # On a CPU it would need a compiler at hand, and half a minute at every start.
            parts=Parts.fused() if self.device.type == "cuda" else Parts(),
        )
        pipe.transformer = None  # its weights live on in ours
        pipe.vae.to(memory_format=torch.channels_last)  # as its convolutions want it: a third less time to decode
        if self.device.type == "cuda":
            # Its norms alone take three times as long as its convolutions otherwise (H200).
            pipe.vae.decoder.forward = compiled(pipe.vae.decoder.forward, sizes=[(0, 2), (0, 3)])
        # First in line for the device: what an image needs before its first step is little, and others' steps are long.
        # One for good: what a stream gave back of the device's memory is lent again to itself alone.
        self._stream = torch.cuda.Stream(self.device, priority=-1) if self.device.type == "cuda" else None
        self._linears = self._packed.slot_linears()
        quantize(self._packed, precision)
        self._tokenizing = threading.Lock()  # a tokenizer changes itself while it works
        self._token_px: int = pipe.vae_scale_factor * 2
        self.costs = NEVER_MERGE
        self.work_per_second = float("inf")
        self.tokens_max = sys.maxsize

    @property
    def device_name(self) -> str:
        """The device as a slug, for example "nvidia-h200" or "cpu"."""
        if self.device.type != "cuda":
            return self.device.type
        return "-".join(torch.cuda.get_device_name(self.device).lower().split())

    @property
    def weight_bytes(self) -> int:
        """Of the transformer, without what is kept for adapters."""
        return sum(_bytes(weight) for weight in self._packed.parameters())

    def _latent_tokens(self, width: int, height: int) -> int:
        """How many tokens an image of this size (in pixels) has. Raises `SizeUnsupported`."""
        px = self._token_px
        height_max, width_max = (side * px for side in self._sides_max)
        if width % px or height % px or not 0 < height <= height_max or not 0 < width <= width_max:
            limit = f"{px} up to {width_max} x {height_max}"
            raise SizeUnsupported(f"{width} x {height} is not possible: sides are multiples of {limit}")
        return (width // px) * (height // px)

    def step_tokens(self, width: int, height: int, prompt_tokens: int) -> int:
        """How many tokens a step handles for an image of this size in pixels. Raises `SizeUnsupported`."""
        return filled(self._latent_tokens(width, height)) + filled(prompt_tokens)

    def step_work(self, width: int, height: int, prompt_tokens: int) -> float:
        """Floating point operations of a step: what shared device time is split by. Raises `SizeUnsupported`."""
        return self._packed.step_flops(filled(self._latent_tokens(width, height)), filled(prompt_tokens))

    def prompt_ids(self, prompt: str) -> list[int]:
        """The prompt as tokens, in the chat template. Raises `PromptTooLong`."""
        messages = [{"role": "user", "content": prompt}]
        with self._tokenizing:
            text = self.pipe.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=True
            )
            ids: list[int] = self.pipe.tokenizer(text).input_ids
        if len(ids) > PROMPT_TOKENS_MAX:
            raise PromptTooLong(f"the prompt has {len(ids)} tokens; the model reads {PROMPT_TOKENS_MAX}")
        return ids

    @torch.inference_mode()
    def encode(self, prompts: Sequence[list[int]]) -> list[Tensor]:
        """The captions [tokens, dim] of prompts given as tokens, each at its own length.

        The encoder is causal: what fills the shorter ones up comes after all that they read.
        """
        ids = pad_sequence([torch.tensor(prompt) for prompt in prompts], batch_first=True).to(self.device)
        with self._memory_errors():
            hidden = self.pipe.text_encoder(input_ids=ids, output_hidden_states=True).hidden_states[-2]
        return [row[: len(prompt)].clone() for row, prompt in zip(hidden, prompts, strict=True)]

    @torch.inference_mode()
    def load(self, slot: int, adapter: AdapterTable) -> None:
        """Copy an adapter into a slot that no row uses."""
        with self._memory_errors():
            matrices = adapter.on(self.device)
            for linear in self._linears:
                linear.load(slot, matrices)

    @torch.inference_mode()
    def merge(self, place: int, used: Used) -> None:
        """Make merged weights, in a place that no row uses, of adapters in slots."""
        with self._memory_errors():
            for linear in self._linears:
                linear.merge(place, used)

    def sequence(self, caption: Tensor, width: int, height: int, adapters: RowAdapters) -> ImageSequence:
        """What all steps of an image share: made once, under its adapters."""
        with self._memory_errors():
            return self._packed.sequence(caption, height // self._token_px, width // self._token_px, adapters)

    def initial_latents(self, seed: int, width: int, height: int) -> Tensor:
        """Noise, float32 [channels, height / 8, width / 8], from the CPU: a seed means the same anywhere."""
        rows, columns = 2 * height // self._token_px, 2 * width // self._token_px
        shape = (1, self._channels, rows, columns)
        generator = torch.Generator("cpu").manual_seed(seed)
        return torch.randn(shape, generator=generator, dtype=torch.float32)[0].to(self.device)

    def sigmas(self, steps: int, width: int, height: int) -> list[float]:
        """The `steps + 1` noise levels from 1 to 0. The scheduler keeps state, so each call makes its own."""
        config = self.pipe.scheduler.config
        shift = calculate_shift(
            self._latent_tokens(width, height),
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", 1.15),
        )
        scheduler = type(self.pipe.scheduler).from_config(config)
        scheduler.set_timesteps(sigmas=get_default_z_image_sigmas(steps), mu=shift)
        return [float(sigma) for sigma in scheduler.sigmas]

    def velocity(
        self,
        latents: Sequence[Tensor],
        sigmas: Sequence[float],
        sequences: Sequence[ImageSequence],
        adapters: Sequence[RowAdapters],
    ) -> list[Tensor]:
        """d(latents)/d(sigma) of each image at its own noise level, float32, in the shapes of `latents`."""
        with self._memory_errors():
            outputs = self._packed(latents, [1 - sigma for sigma in sigmas], sequences, adapters)
        return [-output.float() for output in outputs]

    @torch.inference_mode()
    def decode(self, latents: Sequence[Tensor]) -> list[Image.Image | ImageNotFinite]:
        """The pictures, RGB, of finished latents, all of one size; an error where they are no numbers any more."""
        vae = self.pipe.vae
        scaled = torch.stack(list(latents)).to(vae.dtype) / vae.config.scaling_factor + vae.config.shift_factor
        finite = scaled.flatten(1).isfinite().all(1).tolist()
        with self._memory_errors():
            # A GPU gains nothing from company, and each number of pictures is a case of its own to a compiler.
            parts = scaled.nan_to_num(0, 0, 0).split(1 if self.device.type == "cuda" else len(scaled))
            pixels = torch.cat([vae.decode(part, return_dict=False)[0] for part in parts]).float()
        pictures = (pixels / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)
        images = [Image.fromarray(picture) for picture in pictures.cpu().numpy()]
        error = ImageNotFinite("the image's numbers grew beyond bounds; try its adapters at smaller scales")
        return [image if good else error for image, good in zip(images, finite, strict=True)]

    @torch.inference_mode()
    def preview(self, latents: Tensor) -> Image.Image:
        """A small, rough picture of a row's `denoised` latents without the decoder: a pixel for each 8 x 8."""
        flat = latents.flatten(1).T.float().cpu()
        pixels = functional.pad(flat, (0, 1), value=1.0) @ self._preview_map
        pixels = pixels.clamp(0, 1).mul(255).round().to(torch.uint8)
        return Image.fromarray(pixels.view(*latents.shape[1:], 3).numpy())

    @cached_property
    def _preview_map(self) -> Tensor:
        """Least squares from latents, and a constant, to colours [channels + 1, 3], over encoded plain blocks."""
        vae = self.pipe.vae
        coarse = torch.rand(32, 3, 4, 4, generator=torch.Generator().manual_seed(0)).round()
        pictures = functional.interpolate(coarse, size=(128, 128))
        encoded = vae.encode((2 * pictures - 1).to(vae.device, vae.dtype)).latent_dist.mode()
        latents = (encoded.float().cpu() - vae.config.shift_factor) * vae.config.scaling_factor
        colours = functional.adaptive_avg_pool2d(pictures, latents.shape[2:])
        rows = functional.pad(latents.movedim(1, -1).flatten(0, 2), (0, 1), value=1.0)
        solution: Tensor = torch.linalg.lstsq(rows, colours.movedim(1, -1).flatten(0, 2)).solution
        return solution

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Everything inside runs beside what other threads give the device."""
        with torch.cuda.stream(self._stream):
            yield

    def synchronize(self) -> None:
        """Wait until the device has done all that this thread gave it."""
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()

    def warm_up(self) -> None:
        """One small image, so that the first real one doesn't pay for lazy initialisation, and what steps cost."""
        with self.stream():
            (caption,) = self.encode([self.prompt_ids("warm up")])
            # Not square: a compiler would take it that all are.
            latents = self.initial_latents(0, _WARM_UP_PX + self._token_px, _WARM_UP_PX)
            self.decode([latents])
            self.synchronize()
        self.preview(latents)
        if self.device.type == "cuda":
            self._packed.record(self.sequence(caption, _WARM_UP_PX, _WARM_UP_PX, RowAdapters()))
        self._measure(caption)
        self.synchronize()

    def _measure(self, caption: Tensor) -> None:
        """Time a step of rows without adapters, with unmerged and with merged ones: what policies decide by."""
        layers = {path: shape for path, shape in self.targets.shapes.items() if path.startswith("layers.")}
        zeros = {
            path: (
                torch.zeros(_WARM_UP_RANK, width, dtype=self.dtype),
                torch.zeros(height, _WARM_UP_RANK, dtype=self.dtype),
            )
            for path, (height, width) in layers.items()
        }
        self.load(0, AdapterTable("", zeros))
        # On a GPU enough to keep it busy: its launches would be taken for the costs of the work otherwise.
        rows, px = (4, 2 * _WARM_UP_PX) if self.device.type == "cuda" else (2, _WARM_UP_PX)
        latents = [self.initial_latents(seed, px, px) for seed in range(rows)]
        sequences = [self.sequence(caption, px, px, RowAdapters())] * rows
        tokens = rows * self.step_tokens(px, px, len(caption))

        def step(*adapters: RowAdapters) -> Callable[[], Any]:
            """Rows that take these in turn."""
            taken = [adapters[row % len(adapters)] for row in range(rows)]
            return lambda: self.velocity(latents, [0.5] * rows, sequences, taken)

        memory_free, memory_before = self._memory()
        base = self._seconds(step(RowAdapters()))
        if memory_free:
            memory_used = torch.cuda.max_memory_allocated(self.device) - memory_before
            self.tokens_max = int(_MEMORY_SHARE * memory_free / memory_used * tokens)
        self.work_per_second = rows * self.step_work(px, px, len(caption)) / base
        if self.merged_max > 1:
            used = ((0, 1.0),)
            self.merge(0, used)
            merge = self._seconds(lambda: self.merge(1, used))
            unmerged = self._seconds(step(RowAdapters(used)))
            merged = self._seconds(step(RowAdapters(merged=0), RowAdapters(merged=1)))
            self.costs = AdapterCosts(
                unmerged_per_token=max(0.0, unmerged - base) / tokens,
                merge=merge,
                merged_per_step=max(0.0, merged - base) / rows,
            )
        log.info(
            "model_measured",
            gflops_per_second=round(self.work_per_second / 1e9, 1),
            tokens_max=self.tokens_max,
            **{f"{name}_seconds": round(value, 9) for name, value in asdict(self.costs).items()},
        )

    def _memory(self) -> tuple[int, int]:
        """Bytes of the device that are free, and those in use by tensors; zeros for a CPU."""
        if self.device.type != "cuda":
            return 0, 0
        torch.cuda.reset_peak_memory_stats(self.device)
        return torch.cuda.mem_get_info(self.device)[0], torch.cuda.memory_allocated(self.device)

    def _seconds(self, work: Callable[[], Any]) -> float:
        """How long `work` takes: the least of three times, after one that isn't counted."""
        times = []
        for _ in range(4):
            begun = time.perf_counter()
            work()
            self.synchronize()
            times.append(time.perf_counter() - begun)
        return min(times[1:])

    @contextmanager
    def _memory_errors(self) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise OutOfMemory("the device's memory is too small for this work") from error


def load_model(ref: str, *, name: str, precision: Precision = "none", room: Room | None = None) -> LoadedModel:
    """Load a local folder or a hub id (`HF_HUB_OFFLINE` is respected) on the best device there is.

    bfloat16 on CUDA, float32 elsewhere. Raises `OSError` if there is no such model, `TypeError` if it is of
    another kind.
    """
    begun = time.monotonic()
    _hush_libraries()
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    pipe: Any = DiffusionPipeline.from_pretrained(ref, dtype=dtype)
    if not issubclass(type(pipe), ZImagePipeline):
        raise TypeError(f"{name} is a {type(pipe).__name__}, not a ZImagePipeline")
    model = LoadedModel(pipe.to(device), name, precision=precision, room=room)
    log.info(
        "model_loaded",
        model_name=name,
        device=model.device_name,
        dtype=str(dtype).removeprefix("torch."),
        precision=precision,
        duration_seconds=round(time.monotonic() - begun, 3),
    )
    return model


def _bytes(weight: Tensor) -> int:
    """A quantised weight is a tensor made of others."""
    if hasattr(weight, "__tensor_flatten__"):
        return sum(_bytes(getattr(weight, name)) for name in weight.__tensor_flatten__()[0])
    return weight.nbytes


def _hush_libraries() -> None:
    """Progress bars are no logs; warnings go through the root logger as everything else does."""
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.disable_progress_bar()
        library.disable_default_handler()
        library.enable_propagation()
