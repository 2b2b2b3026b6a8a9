"""Training's own forward pass computes what the transformer's does."""

import pytest
import torch

from inference.demo_model.forward import CAPTION_TOKENS, forward_dense
from inference.demo_model.models import LATENT_CHANNELS, TEXT_WIDTH, new_transformer


@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (16, 20), (24, 10)])
@torch.no_grad()
def test_the_dense_forward_pass_is_the_transformers_own(rows, columns):
    torch.manual_seed(0)
    transformer = new_transformer().eval()
    for parameter in transformer.parameters():  # some start at zero, which would hide what they do
        parameter.add_(0.05 * torch.randn_like(parameter))
    latents = torch.randn(2, LATENT_CHANNELS, rows, columns)
    captions = torch.randn(2, CAPTION_TOKENS, TEXT_WIDTH)
    lengths, times = torch.tensor([7, 20]), torch.tensor([0.1, 0.8])

    dense = forward_dense(transformer, latents, times, captions, lengths)

    prompts = [caption[:length] for caption, length in zip(captions, lengths, strict=True)]
    (expected,) = transformer(list(latents.unsqueeze(2)), times, prompts, return_dict=False)
    torch.testing.assert_close(dense, torch.stack(expected).squeeze(2), atol=1e-4, rtol=1e-3)
