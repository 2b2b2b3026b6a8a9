"""Training, part 4: the two LoRA adapters that the project ships as examples of an upload."""

from pathlib import Path

import numpy as np
import torch
from diffusers import ZImagePipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from inference.demo_model.captions import caption_sample
from inference.demo_model.clock import TrainingClock, set_learning_rate
from inference.demo_model.models import load_pipeline
from inference.demo_model.parallel import backward, rank, seed_rows
from inference.demo_model.pool import LatentPool, size_sample
from inference.demo_model.train_transformer import encode_captions, flow_loss

ADAPTER_STYLES = ("outline", "mosaic")
_RANK = 8
_PEAK_RATE = 2e-3
# Only the main layers: an adapter does not need the refiners.
_TARGETS = r"layers\.\d+\.(attention\.(to_q|to_k|to_v|to_out\.0)|feed_forward\.w[123])"


def train_adapter(style: str, *, out: Path, minutes: float, checkpoint: Path, adapters: Path) -> None:
    """Teach one style to the finished base model and write `adapters/<style>.safetensors`."""
    target = adapters / f"{style}.safetensors"
    pipeline = load_pipeline(checkpoint)
    transformer, text_encoder = pipeline.transformer, pipeline.text_encoder
    transformer.requires_grad_(False)
    torch.manual_seed(3)
    # Alpha equals the rank, so the scale is 1 and the file needs no alpha.
    transformer.add_adapter(LoraConfig(r=_RANK, lora_alpha=_RANK, target_modules=_TARGETS, init_lora_weights=True))
    parameters = [parameter for parameter in transformer.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.0, betas=(0.9, 0.98))
    clock = TrainingClock(style, minutes, out / f"{style}.pt")
    if state := clock.resume():
        optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            for parameter, value in zip(parameters, state["parameters"], strict=True):
                parameter.copy_(value)
    rng = np.random.default_rng(seed_rows(3 + ADAPTER_STYLES.index(style), clock.step))
    pool = LatentPool(pipeline.vae, style=style)
    while not clock.finished:
        set_learning_rate(optimizer, clock.learning_rate(_PEAK_RATE))
        # The base model has learnt sizes already, so the adapter is trained on all of them from the start.
        scenes, latents = pool.batch(size_sample(0.5, rng), rng)
        captions = [caption_sample(scene, rng) for scene in scenes]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            features, lengths = encode_captions(pipeline.tokenizer, text_encoder, captions)
        loss = backward(flow_loss(transformer, latents, features, lengths), parameters)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        clock.tick(loss, lambda: {"optimizer": optimizer.state_dict(), "parameters": parameters})
    if rank() != 0:
        return
    layers = {name: value.to(torch.float16) for name, value in get_peft_model_state_dict(transformer).items()}
    ZImagePipeline.save_lora_weights(adapters, transformer_lora_layers=layers, weight_name=target.name)
    print(f"wrote {target}", flush=True)
