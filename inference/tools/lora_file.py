"""LoRA files as they are on disk, for commands that have no registry in front of them to convert what is uploaded."""

import hashlib
from pathlib import Path

from inference.adapters import AdapterTable, AdapterTargets, adapter_of, read_tensors
from inference.demo_model import ADAPTERS_DIR


def lora_file(path: Path, targets: AdapterTargets) -> AdapterTable:
    """A file as diffusers writes it for a Z-Image, or a canonical one. Raises `AdapterRejected` and `OSError`.

    Diffusers puts `transformer.` before each module and leaves out alpha where it is the rank.
    """
    content = path.read_bytes()
    tensors = {key.removeprefix("transformer."): tensor for key, tensor in read_tensors(path).items()}
    for key in [key for key in tensors if key.endswith(".lora_A.weight")]:
        rank = tensors[key].new_tensor(len(tensors[key]))
        tensors.setdefault(f"{key.removesuffix('.lora_A.weight')}.alpha", rank)
    return adapter_of(tensors, targets, sha256=hashlib.sha256(content).hexdigest())


def bundled_adapter(name: str, targets: AdapterTargets) -> AdapterTable:
    """`outline` or `mosaic`, which come with the demo model."""
    return lora_file(ADAPTERS_DIR / f"{name}.safetensors", targets)
