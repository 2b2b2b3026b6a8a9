"""Train the demo model from scratch: `python -m inference.demo_model.train --minutes 240`.

It trains the autoencoder, the text encoder, the transformer, then the two example adapters. Each part has its share of
the minutes and ends on time.
"""

import argparse
from pathlib import Path

from inference.demo_model import ADAPTERS_DIR, CHECKPOINT_DIR
from inference.demo_model.models import save_pipeline
from inference.demo_model.tokenizer import new_tokenizer
from inference.demo_model.train_adapters import ADAPTER_STYLES, train_adapter
from inference.demo_model.train_autoencoder import train_autoencoder
from inference.demo_model.train_transformer import pretrain_text_encoder, train_transformer

# Shares of the minutes.
_AUTOENCODER, _TEXT_ENCODER, _TRANSFORMER, _ADAPTER = 0.11, 0.05, 0.70, 0.07


def train_base(minutes: float, checkpoint: Path) -> None:
    """Train the base model and write its folder."""
    tokenizer = new_tokenizer()
    autoencoder = train_autoencoder(minutes * _AUTOENCODER)
    text_encoder = pretrain_text_encoder(minutes * _TEXT_ENCODER, tokenizer)
    save_pipeline(
        checkpoint,
        transformer=train_transformer(minutes * _TRANSFORMER, autoencoder, text_encoder, tokenizer),
        text_encoder=text_encoder,
        autoencoder=autoencoder,
        tokenizer=tokenizer,
    )
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
            train_adapter(
                style,
                minutes=options.minutes * _ADAPTER,
                checkpoint=options.checkpoint,
                adapters=options.adapters,
            )


if __name__ == "__main__":
    main()
