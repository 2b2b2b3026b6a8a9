"""The demo model's parts, built from the same diffusers and transformers classes as Z-Image."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, ZImagePipeline, ZImageTransformer2DModel
from transformers import Qwen3Config, Qwen3Model

LATENT_CHANNELS = 8
TEXT_WIDTH = 128
SHIFT = 3.0  # Z-Image-Turbo's: eight steps spend most of their time at high noise


def new_autoencoder() -> AutoencoderKL:
    """Make an autoencoder of pictures (batch, 3, h, w) in -1..1 and latents (batch, 8, h/8, w/8)."""
    return AutoencoderKL(
        block_out_channels=(16, 24, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=LATENT_CHANNELS,
        layers_per_block=1,
        norm_num_groups=2,  # with more groups of so few channels, a plain area would lose its colour
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.0,
        shift_factor=0.0,
    )


def new_text_encoder(vocabulary_size: int, pad_token_id: int) -> Qwen3Model:
    """Make an encoder of four layers; the pipeline reads the third, `hidden_states[-2]`."""
    return Qwen3Model(
        Qwen3Config(
            vocab_size=vocabulary_size,
            hidden_size=TEXT_WIDTH,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=512,
            rope_theta=10_000.0,
            pad_token_id=pad_token_id,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


def new_transformer() -> ZImageTransformer2DModel:
    """Make a transformer of about 2.5 million parameters; every 16 x 16 pixels are one token."""
    return ZImageTransformer2DModel(
        in_channels=LATENT_CHANNELS,
        dim=128,
        n_layers=6,
        n_refiner_layers=1,
        n_heads=4,
        n_kv_heads=4,
        cap_feat_dim=TEXT_WIDTH,
        axes_dims=[8, 12, 12],
        axes_lens=[1024, 128, 128],
    )


def load_pipeline(directory: Path | str) -> ZImagePipeline:
    """Load the pipeline in fp32 on the CPU, without progress bars."""
    pipeline = ZImagePipeline.from_pretrained(str(directory), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
