"""Train the demo model from scratch: `python -m inference.demo_model.train --minutes 60`.

It trains the autoencoder, the text encoder, the transformer, then the two example adapters. Each part has its share of
the minutes and ends on time; an interrupted run resumes where it stopped.
"""

import argparse
from pathlib import Path

from inference.demo_model import ADAPTERS_DIR, CHECKPOINT_DIR
from inference.demo_model.forward import use_plain_attention
from inference.demo_model.models import save_pipeline
from inference.demo_model.parallel import rank, run_on_all_cores, wait_for_all
from inference.demo_model.tokenizer import new_tokenizer
from inference.demo_model.train_adapters import ADAPTER_STYLES, train_adapter
from inference.demo_model.train_autoencoder import train_autoencoder
from inference.demo_model.train_transformer import train_transformer

# Shares of the minutes.
_AUTOENCODER, _TEXT_ENCODER, _TRANSFORMER, _ADAPTER = 0.11, 0.05, 0.70, 0.07


def train_base(out: Path, minutes: float, checkpoint: Path) -> None:
    """Train the base model and write its folder."""
    autoencoder = train_autoencoder(out, minutes * _AUTOENCODER)
    transformer, text_encoder = train_transformer(out, minutes * _TRANSFORMER, autoencoder, minutes * _TEXT_ENCODER)
    if rank() == 0:
        save_pipeline(
            checkpoint,
            transformer=transformer,
            text_encoder=text_encoder,
            autoencoder=autoencoder,
            tokenizer=new_tokenizer(),
        )
        print(f"wrote {checkpoint}", flush=True)
    wait_for_all()


def main() -> None:
    """Parse the command line and run the parts that are not finished yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="time for all parts together")
    parser.add_argument("--out", type=Path, default=Path("var/demo_model"), help="resumable state")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT_DIR)
    parser.add_argument("--adapters", type=Path, default=ADAPTERS_DIR)
    parser.add_argument("--only", choices=("base", "adapters"), help="train only this half")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    run_on_all_cores(_train, options)


def _train(options: argparse.Namespace) -> None:
    use_plain_attention()
    if options.only != "adapters":
        train_base(options.out, options.minutes, options.checkpoint)
    if options.only != "base":
        for style in ADAPTER_STYLES:
            train_adapter(
                style,
                out=options.out,
                minutes=options.minutes * _ADAPTER,
                checkpoint=options.checkpoint,
                adapters=options.adapters,
            )


if __name__ == "__main__":
    main()
