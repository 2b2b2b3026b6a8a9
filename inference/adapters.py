"""LoRA adapter files: a canonical file is checked against its model and becomes a table of matrices.

A canonical file is safetensors with exactly three tensors for each module that it changes:
`<module>.lora_A.weight` [rank, in], `<module>.lora_B.weight` [out, rank] and `<module>.alpha`, a scalar.
It adds `scale * alpha / rank * B @ A @ x` to the module's output.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch._utils import _unflatten_dense_tensors

from inference.errors import AdapterRejected

_PARTS = (".lora_A.weight", ".lora_B.weight", ".alpha")
Matrices = dict[str, tuple[Tensor, Tensor]]


class AdapterTable:
    """An adapter's matrices by module path: A [rank, in] and B [out, rank] of one dtype, B times alpha / rank."""

    def __init__(self, sha256: str, matrices: Matrices) -> None:
        self.sha256 = sha256
        self._paths = list(matrices)
        tensors = [matrix for pair in matrices.values() for matrix in pair]
        values = torch.cat([matrix.flatten() for matrix in tensors])
        # One pinned tensor, so that one asynchronous copy brings the adapter to a GPU.
        self._values = values.pin_memory() if torch.cuda.is_available() else values
        self._like = [torch.empty(matrix.shape, dtype=matrix.dtype, device="meta") for matrix in tensors]

    @property
    def size_bytes(self) -> int:
        return self._values.nbytes

    def on(self, device: torch.device | str) -> Matrices:
        """Copy the matrices to a device, asynchronously; work launched on the same stream waits for the copy."""
        parts = iter(_unflatten_dense_tensors(self._values.to(device, non_blocking=True), self._like))
        return {path: (next(parts), next(parts)) for path in self._paths}


@dataclass(frozen=True, slots=True)
class AdapterTargets:
    """The layers that an adapter may change: [out, in] of each linear layer by path, the largest rank, the dtype."""

    shapes: Mapping[str, tuple[int, int]]
    rank_max: int
    dtype: torch.dtype

    @classmethod
    def of(cls, transformer: nn.Module, *, rank_max: int) -> "AdapterTargets":
        linears = {path: module for path, module in transformer.named_modules() if isinstance(module, nn.Linear)}
        shapes = {path: (module.out_features, module.in_features) for path, module in linears.items()}
        return cls(shapes, rank_max, next(transformer.parameters()).dtype)


def load_adapter(path: Path, targets: AdapterTargets, *, sha256: str) -> AdapterTable:
    """Read a canonical file and check all of it against the transformer's `targets`.

    Raises `AdapterRejected` with the code of the first check that fails: `adapter_unreadable`,
    `adapter_empty`, `adapter_key_unknown`, `adapter_weight_missing`, `adapter_module_unknown`, `adapter_shape`,
    `adapter_rank_unsupported`, `adapter_weight_not_finite`.
    """
    return adapter_of(read_tensors(path), targets, sha256=sha256)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises `AdapterRejected` with the code `adapter_unreadable`."""
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise AdapterRejected("the file is not a safetensors file", code="adapter_unreadable") from error


def adapter_of(tensors: Mapping[str, Tensor], targets: AdapterTargets, *, sha256: str) -> AdapterTable:
    """Check a canonical file's tensors and make a table of them. Raises `AdapterRejected` as `load_adapter` does."""
    if not tensors:
        raise AdapterRejected("the file has no tensors", code="adapter_empty")
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        part = next((part for part in _PARTS if key.endswith(part)), None)
        if part is None:
            raise AdapterRejected(f"{key} is not a tensor of a canonical adapter", code="adapter_key_unknown")
        parts[key.removesuffix(part)][part] = tensor

    matrices: Matrices = {}
    for module, found in sorted(parts.items()):
        if missing := [part for part in _PARTS if part not in found]:
            raise AdapterRejected(f"{module} lacks {', '.join(missing)}", code="adapter_weight_missing")
        if module not in targets.shapes:
            raise AdapterRejected(f"the model has no linear layer {module}", code="adapter_module_unknown")
        matrices[module] = _checked(module, targets, *(found[part] for part in _PARTS))
    return AdapterTable(sha256, matrices)


def _checked(module: str, targets: AdapterTargets, a: Tensor, b: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    out_features, in_features = targets.shapes[module]
    rank = a.shape[0] if a.ndim == 2 else 0
    shapes = tuple(a.shape), tuple(b.shape)
    if rank == 0 or shapes != ((rank, in_features), (out_features, rank)) or alpha.numel() != 1:
        raise AdapterRejected(
            f"{module} is {in_features} -> {out_features}; "
            f"A {shapes[0]}, B {shapes[1]} and alpha {tuple(alpha.shape)} do not fit it",
            code="adapter_shape",
        )
    if rank > targets.rank_max:
        raise AdapterRejected(
            f"{module} has rank {rank}; this worker accepts up to {targets.rank_max}", code="adapter_rank_unsupported"
        )
    # Checked in the model's own dtype: a finite float32 value may be infinite in a narrower one.
    a, b = a.to(targets.dtype), (b.float() * (alpha.float().reshape(()) / rank)).to(targets.dtype)
    if not (a.isfinite().all() and b.isfinite().all()):
        raise AdapterRejected(f"{module} has values that are not finite", code="adapter_weight_not_finite")
    return a, b
