"""The two adapters that the project ships, which are in diffusers' format as an upload would be."""

import hashlib

from safetensors.torch import load_file

from inference.adapters import AdapterTable, AdapterTargets, adapter_of
from inference.demo_model import ADAPTERS_DIR


def bundled_adapter(name: str, targets: AdapterTargets) -> AdapterTable:
    """`outline` or `mosaic`, ready for a slot. Their alpha is their rank, which diffusers leaves out."""
    path = ADAPTERS_DIR / f"{name}.safetensors"
    tensors = {key.removeprefix("transformer."): tensor for key, tensor in load_file(path).items()}
    for key in [key for key in tensors if key.endswith(".lora_A.weight")]:
        rank = tensors[key].new_tensor(len(tensors[key]))
        tensors[f"{key.removesuffix('.lora_A.weight')}.alpha"] = rank
    return adapter_of(tensors, targets, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
