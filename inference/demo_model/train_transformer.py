"""Training, parts 2 and 3: the text encoder on the contents of captions, then the transformer by flow matching."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ZImageTransformer2DModel
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import PreTrainedTokenizerFast, Qwen3Model

from inference.demo_model.captions import caption_sample
from inference.demo_model.forward import CAPTION_TOKENS, forward_dense
from inference.demo_model.loop import train_for
from inference.demo_model.models import SHIFT, TEXT_WIDTH, new_text_encoder, new_transformer
from inference.demo_model.scenes import COLOURS, RELATIONS, SHAPES, Scene, paint, pick, scene_sample
from inference.demo_model.tokenizer import chat
from inference.demo_model.train_autoencoder import to_tensor

_PEAK_RATE = 2e-3
_AVERAGE_DECAY = 0.998
# The caption decides the shape while noise hides it, in the first two of eight steps. In later steps the noisy picture
# shows the shape, and nothing is learnt from the caption. With even noise levels, learning shapes took several times as
# long.
_EARLY_SHARE = 0.4
_EARLY_FROM = 0.9
# Sizes (width, height) in pixels. There are few because a layout scales with its canvas while positions count tokens:
# each size is learnt anew, and with sixteen of them none was learnt well.
_USUAL_SIZE = (256, 256)
_OTHER_SIZES = ((128, 128), (512, 512), (384, 256), (256, 384))
_TOKENS_PER_STEP = 3000


def encode_captions(
    tokenizer: PreTrainedTokenizerFast, text_encoder: Qwen3Model, captions: list[str]
) -> tuple[Tensor, Tensor]:
    """Return text features (rows, tokens, width) as the pipeline computes them, and each caption's length."""
    encoded = tokenizer(
        [chat(caption) for caption in captions], padding=True, pad_to_multiple_of=CAPTION_TOKENS, return_tensors="pt"
    )
    # Attention is causal and padding lies to the right, so no mask is needed.
    hidden = text_encoder(input_ids=encoded.input_ids, output_hidden_states=True).hidden_states[-2]
    return hidden, encoded.attention_mask.sum(dim=1)


def _labels(scene: Scene) -> list[int]:
    """Return the contents of a caption as class numbers; a single thing counts as both things."""
    ordered = scene.things
    if scene.relation in ("right", "below"):
        ordered = ordered[::-1]  # from left to right, or from top to bottom, whatever the wording
    axis = 0 if scene.relation is None else 1 + RELATIONS.index(scene.relation) // 2
    things = (ordered[0], ordered[-1])
    colours = [scene.background, *(thing.colour for thing in things)]
    return [axis, *map(list(COLOURS).index, colours), *(SHAPES.index(thing.shape) for thing in things)]


def pretrain_text_encoder(minutes: float, tokenizer: PreTrainedTokenizerFast) -> Qwen3Model:
    """Train a text encoder to classify the contents of captions, without pictures."""
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    text_encoder = new_text_encoder(len(tokenizer), tokenizer.pad_token_id)
    sizes = [3, *[len(COLOURS)] * 3, *[len(SHAPES)] * 2]
    heads = nn.Sequential(nn.LayerNorm(TEXT_WIDTH), nn.Linear(TEXT_WIDTH, sum(sizes)))
    optimizer = torch.optim.AdamW([*text_encoder.parameters(), *heads.parameters()], weight_decay=0.01)

    def loss_of(_fraction: float) -> Tensor:
        scenes = [scene_sample(rng, pair=bool(rng.random() < 0.7)) for _ in range(32)]
        captions = [caption_sample(scene, rng) for scene in scenes]
        with torch.autocast("cpu", torch.bfloat16):
            hidden, lengths = encode_captions(tokenizer, text_encoder, captions)
            logits = heads(hidden[torch.arange(len(scenes)), lengths - 1])
        labels = torch.tensor([_labels(scene) for scene in scenes]).unbind(dim=1)
        guesses = logits.float().split(sizes, dim=1)
        losses = [F.cross_entropy(guess, label) for guess, label in zip(guesses, labels, strict=True)]
        return torch.stack(losses).sum()

    train_for(minutes, "text encoder", [optimizer], rate_max=1e-3, loss_of=loss_of)
    return text_encoder.eval().requires_grad_(False)


@dataclass
class FlowLoss:
    """The loss of a transformer on newly painted scenes of one style, by flow matching."""

    transformer: ZImageTransformer2DModel
    text_encoder: Qwen3Model
    tokenizer: PreTrainedTokenizerFast
    autoencoder: AutoencoderKL
    style: str
    rng: np.random.Generator

    def __call__(self, fraction: float) -> Tensor:
        """Return the loss of a new batch: mostly of the usual size at first, then more and more of the others."""
        rng, config = self.rng, self.autoencoder.config
        width, height = _USUAL_SIZE
        if rng.random() > 0.9 - 0.5 * fraction:
            width, height = pick(rng, _OTHER_SIZES)
        rows = max(2, round(_TOKENS_PER_STEP / (width * height / 256 + CAPTION_TOKENS)))
        scenes = [scene_sample(rng, pair=bool(rng.random() < 0.5)) for _ in range(rows)]
        captions = [caption_sample(scene, rng) for scene in scenes]
        pictures = [np.asarray(paint(scene, width=width, height=height, rng=rng, style=self.style)) for scene in scenes]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            features, lengths = encode_captions(self.tokenizer, self.text_encoder, captions)
            mean = self.autoencoder.encode(to_tensor(pictures)).latent_dist.mean.float()
        latents = (mean - config.shift_factor) * config.scaling_factor
        return _flow_loss(self.transformer, latents, features, lengths)


def _flow_loss(transformer: ZImageTransformer2DModel, latents: Tensor, captions: Tensor, lengths: Tensor) -> Tensor:
    """Return the mean squared error of the predicted velocity, at the noise levels of sampling."""
    rows = len(latents)
    # One level from each of `rows` equal slices, some moved to the start, shifted as the scheduler shifts them.
    even = (torch.randperm(rows) + torch.rand(rows)) / rows
    early = _EARLY_FROM + (1 - _EARLY_FROM) * torch.rand(rows)
    level = torch.where(torch.rand(rows) < _EARLY_SHARE, early, even)
    sigma = SHIFT * level / (1 + (SHIFT - 1) * level)
    noise = torch.randn_like(latents)
    mixed = torch.lerp(latents, noise, sigma[:, None, None, None])
    with torch.autocast("cpu", torch.bfloat16):
        predicted = forward_dense(transformer, mixed, 1 - sigma, captions, lengths)
    return F.mse_loss(predicted.float(), latents - noise)


@torch.no_grad()
def _open_gates(transformer: ZImageTransformer2DModel) -> None:
    """Initialise every block to contribute equally at any noise level, and the last layer to small outputs."""
    for block in (*transformer.noise_refiner, *transformer.layers):
        linear = block.adaLN_modulation[0]
        linear.weight.mul_(0.1)
        scale, gate = torch.zeros(transformer.dim), torch.full((transformer.dim,), 0.4)
        linear.bias.copy_(torch.cat([scale, gate, scale, gate]))
    transformer.all_final_layer["2-1"].linear.weight.mul_(0.1)
    transformer.cap_pad_token.normal_(std=0.02)
    transformer.x_pad_token.normal_(std=0.02)


def _optimizers(transformer: ZImageTransformer2DModel) -> tuple[torch.optim.Muon, torch.optim.AdamW]:
    """Return Muon for the matrices inside blocks, which needs half the steps of AdamW, and AdamW for the rest."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in transformer.named_parameters():
        inside_block = parameter.ndim == 2 and ("attention.to_" in name or "feed_forward.w" in name)
        (matrices if inside_block else others).append(parameter)
    # Updates of AdamW's size, so that the same learning rate can be used.
    muon = torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW([{"params": others, "weight_decay": 0.0, "scale": 0.75}], betas=(0.9, 0.98))
    return muon, adamw


def train_transformer(
    minutes: float, autoencoder: AutoencoderKL, text_encoder: Qwen3Model, tokenizer: PreTrainedTokenizerFast
) -> ZImageTransformer2DModel:
    """Train a transformer and return the moving average of its weights."""
    torch.manual_seed(2)
    transformer = new_transformer()
    _open_gates(transformer)
    muon, adamw = _optimizers(transformer)
    average = AveragedModel(transformer, multi_avg_fn=get_ema_multi_avg_fn(_AVERAGE_DECAY))
    adamw.register_step_post_hook(lambda *_: average.update_parameters(transformer))
    loss = FlowLoss(transformer, text_encoder, tokenizer, autoencoder, "plain", np.random.default_rng(2))
    train_for(minutes, "transformer", [muon, adamw], rate_max=_PEAK_RATE, loss_of=loss)
    return average.module.eval()
