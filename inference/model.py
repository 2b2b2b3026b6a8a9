"""A diffusers Z-Image pipeline's components, taken apart so that an engine can step many images together.

What `ZImagePipeline.__call__` does for one image (guidance 0) is here as five verbs: `encode`,
`initial_latents`, `sigmas`, `velocity`, `decode`. An image made of them equals the pipeline's for a
`torch.Generator("cpu")` seeded alike.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import diffusers
import structlog
import torch
import transformers
from diffusers import DiffusionPipeline, ZImagePipeline
from diffusers.pipelines.z_image.pipeline_z_image import calculate_shift, get_default_z_image_sigmas
from PIL import Image
from torch import Tensor

from inference.adapters import AdapterTable, LoraLayers
from inference.errors import OutOfMemory, PromptTooLong, SizeUnsupported

PROMPT_TOKENS_MAX = 512  # the pipeline would cut longer prompts without a word
_WARM_UP_PX = 64

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Caption:
    """A prompt as the transformer reads it: `embedding` is [tokens, dim]."""

    embedding: Tensor
    tokens: int


class LoadedModel:
    """A model on its device. Only one thread at a time may use it, apart from `latent_tokens`."""

    def __init__(self, pipe: Any, name: str) -> None:
        """`pipe` is a `ZImagePipeline` on its device; diffusers sets its components without types."""
        self.name = name
        self.pipe = pipe
        self.transformer = pipe.transformer
        self.device: torch.device = pipe.transformer.device
        self.dtype: torch.dtype = pipe.transformer.dtype
        self._adapters = LoraLayers(self.transformer)
        self._token_px: int = pipe.vae_scale_factor * 2

    @property
    def device_name(self) -> str:
        """The device as a slug, for example "nvidia-h200" or "cpu"."""
        if self.device.type != "cuda":
            return self.device.type
        return "-".join(torch.cuda.get_device_name(self.device).lower().split())

    def latent_tokens(self, width: int, height: int) -> int:
        """How many tokens an image of this size (in pixels) has. Raises `SizeUnsupported`."""
        px = self._token_px
        px_max = [length * px for length in self.transformer.axes_lens[1:]]
        if width % px or height % px or not 0 < height <= px_max[0] or not 0 < width <= px_max[1]:
            limit = f"{px} up to {px_max[1]} x {px_max[0]}"
            raise SizeUnsupported(f"{width} x {height} is not possible: sides are multiples of {limit}")
        return (width // px) * (height // px)

    @torch.inference_mode()
    def encode(self, prompt: str) -> Caption:
        """Raises `PromptTooLong`. Padding, which the pipeline masks, is left out: same values, less work."""
        tokenizer, text_encoder = self.pipe.tokenizer, self.pipe.text_encoder
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=True,
        )
        ids: Tensor = tokenizer(text, return_tensors="pt").input_ids
        tokens = ids.shape[1]
        if tokens > PROMPT_TOKENS_MAX:
            raise PromptTooLong(f"the prompt has {tokens} tokens; the model reads {PROMPT_TOKENS_MAX}")
        with self._memory_errors():
            hidden = text_encoder(input_ids=ids.to(self.device), output_hidden_states=True).hidden_states
        return Caption(embedding=hidden[-2][0], tokens=tokens)

    def initial_latents(self, seed: int, width: int, height: int) -> Tensor:
        """Noise, float32 [channels, height / 8, width / 8], from the CPU: a seed means the same anywhere."""
        rows, columns = 2 * height // self._token_px, 2 * width // self._token_px
        shape = (1, self.transformer.in_channels, rows, columns)
        generator = torch.Generator("cpu").manual_seed(seed)
        return torch.randn(shape, generator=generator, dtype=torch.float32)[0].to(self.device)

    def sigmas(self, steps: int, width: int, height: int) -> list[float]:
        """The `steps + 1` noise levels from 1 to 0. The scheduler keeps state, so each call makes its own."""
        config = self.pipe.scheduler.config
        shift = calculate_shift(
            self.latent_tokens(width, height),
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", 1.15),
        )
        scheduler = type(self.pipe.scheduler).from_config(config)
        scheduler.set_timesteps(sigmas=get_default_z_image_sigmas(steps), mu=shift)
        return [float(sigma) for sigma in scheduler.sigmas]

    def activate(self, adapters: Sequence[tuple[AdapterTable, float]]) -> None:
        """Have the next forwards apply exactly these adapters, each at its scale; no base weight changes."""
        with self._memory_errors():
            self._adapters.activate(adapters)

    @torch.inference_mode()
    def velocity(self, latents: Sequence[Tensor], sigmas: Sequence[float], captions: Sequence[Caption]) -> list[Tensor]:
        """d(latents)/d(sigma) of each image at its own noise level, float32, in the shapes of `latents`.

        Sizes, noise levels and caption lengths may differ from image to image.
        """
        timesteps = torch.tensor(sigmas, dtype=torch.float32, device=self.device) * 1000
        with self._memory_errors():
            (outputs,) = self.transformer(
                [x.to(self.dtype).unsqueeze(1) for x in latents],
                (1000 - timesteps) / 1000,
                [caption.embedding for caption in captions],
                return_dict=False,
            )
        return [-output.float().squeeze(1) for output in outputs]

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Image.Image:
        """The picture, RGB, of finished latents."""
        vae = self.pipe.vae
        scaled = latents[None].to(vae.dtype) / vae.config.scaling_factor + vae.config.shift_factor
        with self._memory_errors():
            pixels = vae.decode(scaled, return_dict=False)[0]
        image: Image.Image = self.pipe.image_processor.postprocess(pixels, output_type="pil")[0]
        return image

    def synchronize(self) -> None:
        """Wait until the device has done all it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def warm_up(self) -> None:
        """One tiny image, so that the first real one doesn't pay for lazy initialisation."""
        caption = self.encode("warm up")
        latents = self.initial_latents(0, _WARM_UP_PX, _WARM_UP_PX)
        self.decode(latents - self.velocity([latents], [1.0], [caption])[0])
        self.synchronize()

    @contextmanager
    def _memory_errors(self) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            raise OutOfMemory("the device's memory is too small for this work") from error


def load_model(ref: str, *, name: str) -> LoadedModel:
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
    model = LoadedModel(pipe.to(device), name)
    log.info(
        "model_loaded",
        model_name=name,
        device=model.device_name,
        dtype=str(dtype).removeprefix("torch."),
        duration_seconds=round(time.monotonic() - begun, 3),
    )
    return model


def _hush_libraries() -> None:
    """Progress bars are no logs; warnings go through the root logger as everything else does."""
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.disable_progress_bar()
        library.disable_default_handler()
        library.enable_propagation()
