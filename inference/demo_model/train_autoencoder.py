"""Training, part 1: the autoencoder, on newly painted scenes in every style that the project ships."""

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from inference.demo_model.loop import train_for
from inference.demo_model.models import LATENT_CHANNELS, new_autoencoder
from inference.demo_model.scenes import STYLES, TILE_PX, paint, pick, scene_sample

_KL_WEIGHT = 3e-4
_LATENT_NOISE = 0.12


def to_tensor(pictures: list[NDArray[np.uint8]]) -> Tensor:
    """Convert RGB arrays (h, w, 3) in 0..255 to one batch (n, 3, h, w) in -1..1."""
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    return batch.float().div(127.5).sub(1.0)


def _crop_sample(rng: np.random.Generator, crop_px: int) -> NDArray[np.uint8]:
    """Sample a window of a scene of 128 to 384 px: convolutions do not need whole pictures."""
    side = int(rng.choice([128, 128, 192, 256, 384]))
    style = STYLES[int(rng.choice(3, p=[0.6, 0.2, 0.2]))]
    scene = scene_sample(rng, pair=bool(rng.random() < 0.4))
    picture = np.asarray(paint(scene, width=side, height=side, rng=rng, style=style))
    # Windows start on the mosaic's grid, as the latents of a whole picture would.
    top, left = (int(rng.integers((side - crop_px) // TILE_PX + 1)) * TILE_PX for _ in range(2))
    return picture[top : top + crop_px, left : left + crop_px]


def _batch_sample(rng: np.random.Generator, fraction: float) -> Tensor:
    """Sample a batch: small windows at first, for many quick steps, then larger windows and whole pictures."""
    if fraction < 0.55:
        return to_tensor([_crop_sample(rng, 64) for _ in range(4)])
    if rng.random() < 0.8:
        return to_tensor([_crop_sample(rng, 128) for _ in range(3)])
    # Group normalisation averages over the canvas, so training needs some whole pictures.
    width, height = pick(rng, ((256, 256), (320, 192), (192, 256)))
    scene = scene_sample(rng, pair=bool(rng.random() < 0.5))
    return to_tensor([np.asarray(paint(scene, width=width, height=height, rng=rng))])


def _loss(autoencoder: AutoencoderKL, pictures: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        posterior = autoencoder.encode(pictures).latent_dist
        latents = posterior.mean + posterior.std * torch.randn_like(posterior.std)
        # The transformer leaves a little noise, so the decoder is trained to ignore some.
        amount = _LATENT_NOISE * torch.rand(len(latents), 1, 1, 1)
        decoded = autoencoder.decode(latents + amount * torch.randn_like(latents)).sample
    decoded = decoded.float()
    error = decoded - pictures
    reconstruction = error.abs().mean() + error.square().mean()
    # The error of the edges, across and down, is the difference of neighbouring errors.
    sharpness = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    divergence = posterior.kl().float().mean() / latents[0].numel()
    loss: Tensor = reconstruction + sharpness + _KL_WEIGHT * divergence
    return loss


@torch.no_grad()
def _measure_scale(autoencoder: AutoencoderKL, rng: np.random.Generator) -> None:
    """Set the shift and scale that give the latents mean 0 and standard deviation 1."""
    values = []
    for _ in range(24):
        batch = to_tensor([_crop_sample(rng, 128) for _ in range(8)])
        values.append(autoencoder.encode(batch).latent_dist.mean.flatten())
    latents = torch.cat(values)
    autoencoder.register_to_config(
        shift_factor=round(latents.mean().item(), 4), scaling_factor=round(1.0 / latents.std().item(), 4)
    )


def train_autoencoder(minutes: float) -> AutoencoderKL:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    autoencoder = new_autoencoder()
    # Start from a posterior of little noise: one of deviation 1 hides the signal for hundreds of steps.
    with torch.no_grad():
        autoencoder.encoder.conv_out.bias[LATENT_CHANNELS:] -= 5.0
    optimizer = torch.optim.AdamW(autoencoder.parameters(), weight_decay=1e-4, betas=(0.9, 0.99))

    def loss_of(fraction: float) -> Tensor:
        return _loss(autoencoder, _batch_sample(rng, fraction))

    train_for(minutes, "autoencoder", [optimizer], rate_max=2.5e-3, loss_of=loss_of)
    _measure_scale(autoencoder.eval(), rng)
    return autoencoder
