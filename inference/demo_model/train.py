"""Train the demo model from scratch: `python -m inference.demo_model.train --minutes 240`.

It trains the autoencoder, the text encoder, the transformer, then the two example adapters. Each part has its share of
the minutes and ends on time.
"""

import argparse
from pathlib import Path

from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline

from inference.demo_model import ADAPTERS_DIR, CHECKPOINT_DIR
from inference.demo_model.models import SHIFT
from inference.demo_model.tokenizer import new_tokenizer
from inference.demo_model.train_adapters import ADAPTER_STYLES, train_adapter
from inference.demo_model.train_autoencoder import train_autoencoder
from inference.demo_model.train_transformer import pretrain_text_encoder, train_transformer

# Shares of the minutes.
_AUTOENCODER, _TEXT_ENCODER, _TRANSFORMER, _ADAPTER = 0.11, 0.05, 0.70, 0.07


def train_base(minutes: float, checkpoint: Path) -> None:
    """Train the base model and write its folder, in diffusers' format and fp16."""
    tokenizer = new_tokenizer()
    autoencoder = train_autoencoder(minutes * _AUTOENCODER)
    text_encoder = pretrain_text_encoder(minutes * _TEXT_ENCODER, tokenizer)
    transformer = train_transformer(minutes * _TRANSFORMER, autoencoder, text_encoder, tokenizer)
    pipeline = ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT),
        vae=autoencoder.half(),
        text_encoder=text_encoder.half(),
        tokenizer=tokenizer,
        transformer=transformer.half(),
    )
    pipeline.save_pretrained(checkpoint, safe_serialization=True)
    print(f"wrote {checkpoint}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=240.0, help="time for all parts together")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT_DIR)
    parser.add_argument("--adapters", type=Path, default=ADAPTERS_DIR)
    parser.add_argument("--only", choices=("base", "adapters"), help="train only this half")
    options = parser.parse_args()
    if options.only != "adapters":
        train_base(options.minutes, options.checkpoint)
    if options.only != "base":
        for style in ADAPTER_STYLES:
            train_adapter(style, options.minutes * _ADAPTER, options.checkpoint, options.adapters)


if __name__ == "__main__":
    main()
