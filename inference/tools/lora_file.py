"""LoRA files from disk, for commands without the catalog, which converts uploaded files to canonical ones."""

import hashlib
from pathlib import Path

from inference.adapters import AdapterTable, AdapterTargets, adapter_of, read_tensors


def lora_file(path: Path, targets: AdapterTargets) -> AdapterTable:
    """Read a canonical file, or one that diffusers wrote for a Z-Image. Raises `AdapterRejected` and `OSError`.

    Diffusers prefixes each module with `transformer.` and omits an alpha that equals the rank.
    """
    content = path.read_bytes()
    tensors = {key.removeprefix("transformer."): tensor for key, tensor in read_tensors(path).items()}
    for key in [key for key in tensors if key.endswith(".lora_A.weight")]:
        rank = tensors[key].new_tensor(len(tensors[key]))
        tensors.setdefault(f"{key.removesuffix('.lora_A.weight')}.alpha", rank)
    return adapter_of(tensors, targets, sha256=hashlib.sha256(content).hexdigest())
