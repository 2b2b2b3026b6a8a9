"""Reads from a checkpoint's configuration, without loading weights, the modules that an adapter may change."""

import json
from pathlib import Path
from typing import Any


def lora_targets(checkpoint: str) -> dict[str, list[int]]:
    """Shapes [out, in] of the transformer's linear modules by name, from `transformer/config.json`.

    `checkpoint` is a folder or else a Hugging Face id, whose config file is downloaded. Raises `FileNotFoundError` for
    a folder without that file, and `ValueError` for a transformer of another class than `ZImageTransformer2DModel`.
    """
    config = json.loads(_config_path(checkpoint).read_text())
    if config["_class_name"] != "ZImageTransformer2DModel":
        raise ValueError(f"{checkpoint}: the transformer is a {config['_class_name']}, not a ZImageTransformer2DModel")
    return zimage_targets(config)


def zimage_targets(config: dict[str, Any]) -> dict[str, list[int]]:
    """Shapes [out, in] by module name for a Z-Image transformer of this configuration, as diffusers 0.42 builds it."""
    dim = config["dim"]
    condition = min(dim, 256)  # the width of the timestep embedding
    hidden = int(dim / 3 * 8)
    patches = list(zip(config["all_patch_size"], config["all_f_patch_size"], strict=True))
    pixels = {f"{p}-{f}": config["in_channels"] * p * p * f for p, f in patches}
    block = {
        **{f"attention.to_{name}": [dim, dim] for name in ("q", "k", "v")},
        "attention.to_out.0": [dim, dim],
        "feed_forward.w1": [hidden, dim],
        "feed_forward.w2": [dim, hidden],
        "feed_forward.w3": [hidden, dim],
    }
    modulated = {**block, "adaLN_modulation.0": [4 * dim, condition]}
    targets = {
        "t_embedder.mlp.0": [1024, 256],
        "t_embedder.mlp.2": [condition, 1024],
        "cap_embedder.1": [dim, config["cap_feat_dim"]],
    }
    for name, size in pixels.items():
        targets[f"all_x_embedder.{name}"] = [dim, size]
        targets[f"all_final_layer.{name}.linear"] = [size, dim]
        targets[f"all_final_layer.{name}.adaLN_modulation.1"] = [dim, condition]
    stacks = (
        ("layers", config["n_layers"], modulated),
        ("noise_refiner", config["n_refiner_layers"], modulated),
        ("context_refiner", config["n_refiner_layers"], block),
    )
    for stack, count, modules in stacks:
        for index in range(count):
            targets |= {f"{stack}.{index}.{name}": shape for name, shape in modules.items()}
    return targets


def _config_path(checkpoint: str) -> Path:
    if (folder := Path(checkpoint)).is_dir():
        path = folder / "transformer" / "config.json"
        if not path.is_file():
            raise FileNotFoundError(f"{checkpoint} has no transformer/config.json: not a diffusers checkpoint")
        return path
    from huggingface_hub import hf_hub_download  # here, because its import is slow and few commands need it

    return Path(hf_hub_download(checkpoint, "transformer/config.json"))
