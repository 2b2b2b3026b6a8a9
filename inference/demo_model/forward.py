"""The transformer's forward pass over one dense batch, for training.

`ZImageTransformer2DModel.forward` takes lists of pictures of any size and patchifies them one by one. Here all pictures
of a batch share a size, so that the same modules run without that loop.
"""

import torch
import torch.nn.functional as F
from diffusers import ZImageTransformer2DModel
from torch import Tensor

CAPTION_TOKENS = 32  # Z-Image pads captions, and pictures, to multiples of this
_PATCH = "2-1"


def forward_dense(
    transformer: ZImageTransformer2DModel, latents: Tensor, times: Tensor, captions: Tensor, lengths: Tensor
) -> Tensor:
    """Predict data minus noise (batch, channels, h, w) for noisy latents of the same shape.

    `times` (batch,) run from 0, all noise, to 1, all data. `captions` (batch, tokens, width) are
    the text encoder's; `tokens` is a multiple of 32, of which the first `lengths` (batch,) are used.
    """
    batch, channels, height, width = latents.shape
    rows, columns = height // 2, width // 2
    adaln = transformer.t_embedder(times * transformer.t_scale)

    patches = latents.reshape(batch, channels, rows, 2, columns, 2).permute(0, 2, 4, 3, 5, 1)
    x = transformer.all_x_embedder[_PATCH](patches.reshape(batch, rows * columns, -1))
    padding = -(rows * columns) % CAPTION_TOKENS
    x = torch.cat([x, transformer.x_pad_token.to(x.dtype).expand(batch, padding, -1)], dim=1)
    tokens = captions.shape[1]
    grid = torch.cartesian_prod(torch.tensor([tokens + 1]), torch.arange(rows), torch.arange(columns))
    x_rotation = _rotation(transformer, F.pad(grid, (0, 0, 0, padding)))
    for block in transformer.noise_refiner:
        x = block(x, None, x_rotation, adaln)

    text = transformer.cap_embedder(captions)
    beyond = torch.arange(tokens) >= lengths[:, None]
    text = torch.where(beyond[..., None], transformer.cap_pad_token.to(text.dtype), text)
    text_rotation = _rotation(transformer, F.pad(torch.arange(1, tokens + 1)[:, None], (0, 2)))
    for block in transformer.context_refiner:
        text = block(text, None, text_rotation)

    unified, rotation = torch.cat([x, text.to(x.dtype)], dim=1), torch.cat([x_rotation, text_rotation], dim=1)
    for block in transformer.layers:
        unified = block(unified, None, rotation, adaln)
    picture = transformer.all_final_layer[_PATCH](unified[:, : rows * columns], c=adaln)
    picture = picture.reshape(batch, rows, columns, 2, 2, channels).permute(0, 5, 1, 3, 2, 4)
    velocity: Tensor = picture.reshape(batch, channels, height, width)
    return velocity


def _rotation(transformer: ZImageTransformer2DModel, positions: Tensor) -> Tensor:
    """Return the complex rotations (1, tokens, head width / 2) of `positions` (tokens, 3)."""
    rotation: Tensor = transformer.rope_embedder(positions)
    return rotation[None]
