"""Training, parts 2 and 3: the text encoder on the contents of captions, then the transformer by flow matching."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ZImageTransformer2DModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, Qwen3Model

from inference.demo_model.captions import caption_sample
from inference.demo_model.clock import Average, TrainingClock, set_learning_rate
from inference.demo_model.forward import CAPTION_TOKENS, compile_blocks, forward_dense
from inference.demo_model.models import SHIFT, TEXT_WIDTH, new_text_encoder, new_transformer
from inference.demo_model.muon import Muon
from inference.demo_model.parallel import backward, rank, seed_rows
from inference.demo_model.pool import LatentPool, size_sample
from inference.demo_model.scenes import COLOURS, RELATIONS, SHAPES, Scene, scene_sample
from inference.demo_model.tokenizer import chat, new_tokenizer

_PEAK_RATE = 2e-3
_AVERAGE_DECAY = 0.998
# The caption decides the shape while noise hides it, in the first two of eight steps. In later steps the noisy picture
# shows the shape, and nothing is learnt from the caption. With even noise levels, learning shapes took several times as
# long.
_EARLY_SHARE = 0.4
_EARLY_FROM = 0.9


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
    colours = list(COLOURS)
    return [
        axis,
        colours.index(scene.background),
        *(colours.index(thing.colour) for thing in things),
        *(SHAPES.index(thing.shape) for thing in things),
    ]


def pretrain_text_encoder(out: Path, minutes: float, tokenizer: PreTrainedTokenizerFast) -> Qwen3Model:
    """Train the text encoder to classify the contents of captions, without pictures."""
    text_encoder = new_text_encoder(len(tokenizer), tokenizer.pad_token_id)
    finished = out / "text_encoder_pretrained.pt"
    if finished.exists():
        text_encoder.load_state_dict(torch.load(finished, weights_only=True))
        return text_encoder
    torch.manual_seed(1)
    sizes = [3, *[len(COLOURS)] * 3, *[len(SHAPES)] * 2]
    heads = nn.Sequential(nn.LayerNorm(TEXT_WIDTH), nn.Linear(TEXT_WIDTH, sum(sizes)))
    parameters = [*text_encoder.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.01)
    clock = TrainingClock("text encoder", minutes, out / "text_encoder.pt")
    rng = np.random.default_rng(seed_rows(1, clock.step))
    while not clock.finished:
        set_learning_rate(optimizer, clock.learning_rate(1e-3))
        scenes = [scene_sample(rng, pair=bool(rng.random() < 0.7)) for _ in range(32)]
        captions = [caption_sample(scene, rng) for scene in scenes]
        with torch.autocast("cpu", torch.bfloat16):
            hidden, lengths = encode_captions(tokenizer, text_encoder, captions)
            logits = heads(hidden[torch.arange(len(scenes)), lengths - 1])
        labels = torch.tensor([_labels(scene) for scene in scenes])
        guesses = logits.float().split(sizes, dim=1)
        loss = torch.stack([F.cross_entropy(guess, labels[:, i]) for i, guess in enumerate(guesses)]).sum()
        mean = backward(loss, parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        clock.tick(mean, dict)
    if rank() == 0:
        torch.save(text_encoder.state_dict(), finished)
    return text_encoder


def flow_loss(transformer: ZImageTransformer2DModel, latents: Tensor, captions: Tensor, lengths: Tensor) -> Tensor:
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


def _optimizers(transformer: ZImageTransformer2DModel) -> tuple[Muon, torch.optim.AdamW]:
    matrices = [
        parameter
        for name, parameter in transformer.named_parameters()
        if parameter.ndim == 2 and ("attention.to_" in name or "feed_forward.w" in name)
    ]
    taken = {id(parameter) for parameter in matrices}
    others = [p for p in transformer.parameters() if id(p) not in taken and p.requires_grad]
    adamw = torch.optim.AdamW([{"params": others, "weight_decay": 0.0, "scale": 0.75}], betas=(0.9, 0.98))
    return Muon(matrices), adamw


def train_transformer(
    out: Path, minutes: float, autoencoder: AutoencoderKL, text_minutes: float
) -> tuple[ZImageTransformer2DModel, Qwen3Model]:
    """Train for `minutes` over all runs; the returned transformer has the averaged weights."""
    tokenizer = new_tokenizer()
    text_encoder = pretrain_text_encoder(out, text_minutes, tokenizer).requires_grad_(False)
    torch.manual_seed(2)
    transformer = new_transformer()
    _open_gates(transformer)
    compile_blocks(transformer)
    muon, adamw = _optimizers(transformer)
    parameters = list(transformer.parameters())
    clock = TrainingClock("transformer", minutes, out / "transformer.pt")
    average = Average(parameters, _AVERAGE_DECAY)
    if state := clock.resume():
        transformer.load_state_dict(state["transformer"])
        muon.load_state_dict(state["muon"])
        adamw.load_state_dict(state["adamw"])
        average.values = state["average"]
    rng = np.random.default_rng(seed_rows(2, clock.step))
    pool = LatentPool(autoencoder)

    def state_now() -> dict[str, object]:
        return {
            "transformer": transformer.state_dict(),
            "muon": muon.state_dict(),
            "adamw": adamw.state_dict(),
            "average": average.values,
        }

    while not clock.finished:
        for optimizer in (muon, adamw):
            set_learning_rate(optimizer, clock.learning_rate(_PEAK_RATE))
        scenes, latents = pool.batch(size_sample(clock.fraction, rng), rng)
        captions = [caption_sample(scene, rng) for scene in scenes]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            features, lengths = encode_captions(tokenizer, text_encoder, captions)
        loss = backward(flow_loss(transformer, latents, features, lengths), parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        muon.step()
        adamw.step()
        average.update(clock.step)
        clock.tick(loss, state_now)
    clock.save(state_now())
    average.apply()
    return transformer.eval(), text_encoder.eval()
