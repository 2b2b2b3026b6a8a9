"""LoRA adapters: a canonical file becomes a table of matrices; tables are switched on and off between steps.

A canonical file is safetensors with, for each module it changes, exactly three tensors:
`<module>.lora_A.weight` [rank, in], `<module>.lora_B.weight` [out, rank] and `<module>.alpha`, a scalar.
The module's output then gains `scale * alpha / rank * B @ A @ x`.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from inference.errors import AdapterRejected

_PARTS = (".lora_A.weight", ".lora_B.weight", ".alpha")
Matrices = dict[str, tuple[Tensor, Tensor]]


class AdapterTable:
    """An adapter's matrices by module path: A [rank, in] and B [out, rank], `alpha / rank` folded into B."""

    def __init__(self, sha256: str, matrices: Matrices) -> None:
        self.sha256 = sha256
        self._matrices = matrices

    @property
    def size_bytes(self) -> int:
        return sum(a.nbytes + b.nbytes for a, b in self._matrices.values())

    def on(self, device: torch.device) -> Matrices:
        """The matrices on `device`, where they stay for the next time."""
        if any(a.device != device for a, _ in self._matrices.values()):
            self._matrices = {path: (a.to(device), b.to(device)) for path, (a, b) in self._matrices.items()}
        return self._matrices


def load_adapter(path: Path, transformer: nn.Module, *, sha256: str) -> AdapterTable:
    """Read and check a canonical file whole, against the transformer that it is for, which isn't touched.

    Raises `AdapterRejected` with the code of the first check that fails: `adapter_unreadable`,
    `adapter_empty`, `adapter_key_unknown`, `adapter_incomplete`, `adapter_module_unknown`, `adapter_shape`,
    `adapter_not_finite`.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise AdapterRejected("the file is no safetensors file", code="adapter_unreadable") from error
    if not tensors:
        raise AdapterRejected("the file holds no tensors", code="adapter_empty")

    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        part = next((part for part in _PARTS if key.endswith(part)), None)
        if part is None:
            raise AdapterRejected(f"{key} is no part of a canonical adapter", code="adapter_key_unknown")
        parts[key.removesuffix(part)][part] = tensor

    linears = linear_modules(transformer)
    dtype = next(transformer.parameters()).dtype
    matrices: Matrices = {}
    for module, found in sorted(parts.items()):
        if missing := [part for part in _PARTS if part not in found]:
            raise AdapterRejected(f"{module} lacks {', '.join(missing)}", code="adapter_incomplete")
        if module not in linears:
            raise AdapterRejected(f"the model has no linear layer {module}", code="adapter_module_unknown")
        matrices[module] = _checked(module, linears[module], dtype, *(found[part] for part in _PARTS))
    return AdapterTable(sha256, matrices)


def _checked(
    module: str, linear: nn.Linear, dtype: torch.dtype, a: Tensor, b: Tensor, alpha: Tensor
) -> tuple[Tensor, Tensor]:
    rank = a.shape[0] if a.ndim == 2 else 0
    shapes = tuple(a.shape), tuple(b.shape)
    if rank == 0 or shapes != ((rank, linear.in_features), (linear.out_features, rank)) or alpha.numel() != 1:
        raise AdapterRejected(
            f"{module} is {linear.in_features} -> {linear.out_features}; "
            f"A {shapes[0]}, B {shapes[1]} and alpha {tuple(alpha.shape)} don't fit it",
            code="adapter_shape",
        )
    # Checked in the model's own precision: a float32 value may be infinite as a narrower one.
    a, b = a.to(dtype), (b.float() * (alpha.float().reshape(()) / rank)).to(dtype)
    if not (a.isfinite().all() and b.isfinite().all()):
        raise AdapterRejected(f"{module} has values that are not finite", code="adapter_not_finite")
    return a, b


def linear_modules(transformer: nn.Module) -> dict[str, nn.Linear]:
    """Every linear layer by its path: what an adapter may change."""
    return {path: module for path, module in transformer.named_modules() if isinstance(module, nn.Linear)}


class LoraLayers:
    """Hooks on a transformer's linear layers, put there once, that add the active adapters' outputs.

    Switching replaces references only: no module is wrapped, no weight changes, so nothing needs undoing.
    """

    def __init__(self, transformer: nn.Module) -> None:
        self._device = next(transformer.parameters()).device
        self._key: tuple[tuple[str, float], ...] = ()
        self._terms: dict[str, list[tuple[Tensor, Tensor, float]]] = {}
        for path, module in linear_modules(transformer).items():
            module.register_forward_hook(self._hook(path))

    def activate(self, adapters: Sequence[tuple[AdapterTable, float]]) -> None:
        """From here on, add these adapters, each at its scale; none of them when the list is empty."""
        key = tuple((table.sha256, scale) for table, scale in adapters)
        if key == self._key:
            return
        terms: dict[str, list[tuple[Tensor, Tensor, float]]] = defaultdict(list)
        for table, scale in adapters:
            for path, (a, b) in table.on(self._device).items():
                terms[path].append((a, b, scale))
        self._terms, self._key = dict(terms), key

    def _hook(self, path: str) -> Any:
        def add_adapters(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            for a, b, scale in self._terms.get(path, ()):
                output = output + (args[0] @ a.T) @ b.T * scale
            return output

        return add_adapters
