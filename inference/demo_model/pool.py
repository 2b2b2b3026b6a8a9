"""A pool of painted scenes with their latents, which grows during training.

Encoding a picture costs a third of training on it, so each is used a few times, every time with other noise, another
noise level and another caption.
"""

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from inference.demo_model.forward import CAPTION_TOKENS
from inference.demo_model.scenes import Scene, paint, scene_sample
from inference.demo_model.train_autoencoder import to_tensor

_USES_PER_PICTURE = 4
_PICTURES_MAX = 12_000

# Sizes (width, height) in pixels. There are few because a layout scales with its canvas while positions count tokens:
# each size is learnt anew, and with sixteen of them none was learnt well.
USUAL = (256, 256)
OTHERS = ((128, 128), (512, 512), (384, 256), (256, 384))
_TOKENS_PER_STEP = 3000  # in each process


def size_sample(fraction: float, rng: np.random.Generator) -> tuple[int, int]:
    """Sample a size for the next step: mostly the usual one at first, then more and more of the others."""
    if rng.random() < 0.9 - 0.5 * fraction:
        return USUAL
    return OTHERS[int(rng.integers(len(OTHERS)))]


def rows_per_step(size: tuple[int, int]) -> int:
    """Return the number of pictures of a size that fill one step's budget of tokens."""
    return max(2, round(_TOKENS_PER_STEP / (size[0] * size[1] / 256 + CAPTION_TOKENS)))


class LatentPool:
    """Scenes and latents (channels, h/8, w/8) by size, in one painting style."""

    def __init__(self, autoencoder: AutoencoderKL, *, style: str = "plain") -> None:
        self.autoencoder, self.style = autoencoder.eval(), style
        self.scenes: dict[tuple[int, int], list[Scene]] = {}
        self.latents: dict[tuple[int, int], list[Tensor]] = {}

    def batch(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[list[Scene], Tensor]:
        """Sample scenes and their latents (rows, channels, h/8, w/8); new ones are painted once in a few calls."""
        rows = rows_per_step(size)
        scenes = self.scenes.setdefault(size, [])
        latents = self.latents.setdefault(size, [])
        if len(scenes) < 4 * rows or rng.random() < 1 / _USES_PER_PICTURE:
            self._add(size, rows, rng)
        chosen = rng.choice(len(scenes), size=rows, replace=False)
        return [scenes[i] for i in chosen], torch.stack([latents[i] for i in chosen]).float()

    @torch.no_grad()
    def _add(self, size: tuple[int, int], rows: int, rng: np.random.Generator) -> None:
        width, height = size
        new = [scene_sample(rng, pair=bool(rng.random() < 0.5)) for _ in range(rows)]
        pictures = [np.asarray(paint(scene, width=width, height=height, rng=rng, style=self.style)) for scene in new]
        with torch.autocast("cpu", torch.bfloat16):
            mean = self.autoencoder.encode(to_tensor(pictures)).latent_dist.mean.float()
        config = self.autoencoder.config
        encoded = ((mean - config.shift_factor) * config.scaling_factor).half()
        scenes, latents = self.scenes[size], self.latents[size]
        scenes.extend(new)
        latents.extend(encoded.unbind())
        surplus = max(0, len(scenes) - _PICTURES_MAX)
        del scenes[:surplus], latents[:surplus]
