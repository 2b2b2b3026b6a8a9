"""Training, part 4: the two LoRA adapters that the project ships as examples of an upload."""

from pathlib import Path

import numpy as np
import torch
from diffusers import ZImagePipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from inference.demo_model.loop import train_for
from inference.demo_model.models import load_pipeline
from inference.demo_model.train_transformer import FlowLoss

ADAPTER_STYLES = ("outline", "mosaic")
_RANK = 8
_PEAK_RATE = 2e-3
# Only the main layers: an adapter does not need the refiners.
_TARGETS = r"layers\.\d+\.(attention\.(to_q|to_k|to_v|to_out\.0)|feed_forward\.w[123])"


def train_adapter(style: str, minutes: float, checkpoint: Path, adapters: Path) -> None:
    """Teach one style to the finished base model and write `adapters/<style>.safetensors`."""
    pipeline = load_pipeline(checkpoint)
    transformer = pipeline.transformer.requires_grad_(False)
    torch.manual_seed(3)
    # Alpha equals the rank, so the scale is 1 and the file needs no alpha.
    transformer.add_adapter(LoraConfig(r=_RANK, lora_alpha=_RANK, target_modules=_TARGETS, init_lora_weights=True))
    parameters = [parameter for parameter in transformer.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.0, betas=(0.9, 0.98))
    rng = np.random.default_rng(ADAPTER_STYLES.index(style))
    loss = FlowLoss(transformer, pipeline.text_encoder, pipeline.tokenizer, pipeline.vae, style, rng)
    # The base model has learnt sizes already, so the adapter is trained on all of them from the start.
    train_for(minutes, style, [optimizer], rate_max=_PEAK_RATE, loss_of=lambda _fraction: loss(0.5))
    layers = {name: value.to(torch.float16) for name, value in get_peft_model_state_dict(transformer).items()}
    ZImagePipeline.save_lora_weights(adapters, transformer_lora_layers=layers, weight_name=f"{style}.safetensors")
    print(f"wrote {adapters / style}.safetensors", flush=True)
