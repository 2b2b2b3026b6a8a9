"""Previews of an image on its way: a linear map from latents to colours, in place of the decoder."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional


class PreviewMap:
    """A least-squares map from the latents of one VAE, and a constant, to colours: [channels + 1, 3]."""

    def __init__(self, vae: Any) -> None:
        """Fit the map to pictures of plain blocks that `vae`, a diffusers autoencoder, encodes."""
        blocks = torch.rand(32, 3, 4, 4, generator=torch.Generator().manual_seed(0)).round()
        pictures = functional.interpolate(blocks, size=(128, 128))
        encoded = vae.encode((2 * pictures - 1).to(vae.device, vae.dtype)).latent_dist.mode()
        latents = (encoded.float().cpu() - vae.config.shift_factor) * vae.config.scaling_factor
        colours = functional.adaptive_avg_pool2d(pictures, latents.shape[2:])
        rows = functional.pad(latents.movedim(1, -1).flatten(0, 2), (0, 1), value=1.0)
        self._map: Tensor = torch.linalg.lstsq(rows, colours.movedim(1, -1).flatten(0, 2)).solution

    def picture(self, latents: Tensor) -> Image.Image:
        """Map latents [channels, height, width] to an RGB picture of `width` x `height` pixels."""
        flat = latents.flatten(1).T.float().cpu()
        pixels = functional.pad(flat, (0, 1), value=1.0) @ self._map
        pixels = pixels.clamp(0, 1).mul(255).round().to(torch.uint8)
        return Image.fromarray(pixels.view(*latents.shape[1:], 3).numpy())
