"""Converts a LoRA file of any known format to one canonical form, or refuses it and says why.

A serving library that finds an unknown key tends to load the rest and to log a warning; the tenant then pays for a
wrong image. Here a file is refused, at upload, unless every key is understood. Workers load the canonical form only.
It has, for each module that the adapter changes:

    <module>.lora_A.weight  [rank, in]
    <module>.lora_B.weight  [out, rank]
    <module>.alpha          float32 []        the weight changes by alpha / rank * B @ A

Weights are copied bit by bit. Formats: diffusers (`transformer.`), ai-toolkit and ComfyUI (`diffusion_model.`),
PEFT (`base_model.model.`), DiffSynth and bare module names, kohya and musubi (`lora_unet_`, underscores for dots),
with `lora_A/lora_B`, `lora_down/lora_up` or `lora.down/lora.up`, attention split or fused as `qkv` and `out`.
"""

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np
from safetensors import SafetensorError, deserialize

from easel.catalog.errors import (
    AdapterBaseWrong,
    AdapterFileInvalid,
    AdapterIncomplete,
    AdapterIsPickle,
    AdapterKeysUnknown,
    AdapterKindUnsupported,
    AdapterNotFinite,
    AdapterRankTooLarge,
    AdapterShapeWrong,
)

DTYPES = {"F16": np.float16, "F32": np.float32, "BF16": None}  # numpy has no bfloat16
PREFIXES = ("base_model.model.transformer.", "base_model.model.", "transformer.", "diffusion_model.")
FLAT_PREFIXES = ("lora_unet_", "lora_transformer_")
SUFFIXES = {
    **dict.fromkeys((".lora_A.weight", ".lora_A.default.weight", ".lora_down.weight", ".lora.down.weight"), "A"),
    **dict.fromkeys((".lora_B.weight", ".lora_B.default.weight", ".lora_up.weight", ".lora.up.weight"), "B"),
    ".alpha": "alpha",
}
UNSUPPORTED = {"dora_scale": "DoRA", "lora_magnitude_vector": "DoRA", "lokr_": "LoKr", "hada_": "LoHa"}


@dataclass(slots=True)
class Tensor:
    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def is_finite(self) -> bool:
        if self.dtype == "BF16":  # all exponent bits set means infinite or not a number
            return not bool(np.any((np.frombuffer(self.data, np.uint16) & 0x7F80) == 0x7F80))
        return bool(np.isfinite(np.frombuffer(self.data, DTYPES[self.dtype])).all())

    def rows(self, start: int, stop: int) -> "Tensor":
        width = len(self.data) // self.shape[0]
        return Tensor(self.dtype, (stop - start, *self.shape[1:]), self.data[start * width : stop * width])

    def scalar(self) -> float:
        if self.dtype == "BF16":
            return float(struct.unpack("<f", b"\0\0" + self.data)[0])
        return float(np.frombuffer(self.data, DTYPES[self.dtype])[0])


@dataclass(slots=True)
class CanonicalAdapter:
    """An adapter's changes, as (A, B, alpha) by module."""

    modules: dict[str, tuple[Tensor, Tensor, float]] = field(default_factory=dict)

    @property
    def rank_max(self) -> int:
        return max(a.shape[0] for a, _, _ in self.modules.values())

    def to_safetensors(self) -> bytes:
        """Return the canonical file; equal adapters give equal bytes."""
        tensors: dict[str, Tensor] = {}
        for module, (a, b, alpha) in sorted(self.modules.items()):
            tensors[f"{module}.lora_A.weight"] = a
            tensors[f"{module}.lora_B.weight"] = b
            tensors[f"{module}.alpha"] = Tensor("F32", (), struct.pack("<f", alpha))
        return _write(tensors)


def canonical(data: bytes, *, targets: Mapping[str, list[int]], rank_max: int) -> CanonicalAdapter:
    """Convert an uploaded file for a model whose modules `targets` gives as name -> [out, in].

    Raises a subclass of `AdapterRefused`.
    """
    tensors, metadata = _read(data)
    parts = _by_module(tensors, targets)
    alpha_default = _metadata_alpha(metadata)
    adapter = CanonicalAdapter()
    for module, found in sorted(parts.items()):
        if not {"A", "B"} <= found.keys():
            missing = "lora_A" if "A" not in found else "lora_B"
            raise AdapterIncomplete(f"{module} has no {missing} weight")
        a, b = found["A"], found["B"]
        _check(module, a, b, targets[module], rank_max)
        if "alpha" in found:
            if prod(found["alpha"].shape) != 1:
                raise AdapterShapeWrong(f"{module}: alpha must be one number")
            alpha = found["alpha"].scalar()
        else:
            alpha = alpha_default if alpha_default is not None else float(a.shape[0])
        if not np.isfinite(alpha):
            raise AdapterNotFinite(f"{module} has an alpha that is not a finite number")
        adapter.modules[module] = (a, b, alpha)
    return adapter


def _read(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    if data[:1] == b"\x80" or data[:4] == b"PK\x03\x04":
        reason = "this is a pickled checkpoint, which can run code: save it as safetensors"
        raise AdapterIsPickle(reason)
    if len(data) < 8:
        raise AdapterFileInvalid("the file is empty or truncated: upload a safetensors file")
    try:
        raw = deserialize(data)  # type: ignore[no-untyped-call]
        header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    except (SafetensorError, ValueError) as error:
        reason = f"not a valid safetensors file (truncated or damaged): {error}"
        raise AdapterFileInvalid(reason) from error
    tensors = {}
    for name, info in raw:
        dtype = info["dtype"]
        if dtype not in DTYPES:
            raise AdapterKeysUnknown(f"{_quoted(name)} is {dtype}, not F16, BF16 or F32")
        tensors[name] = Tensor(dtype, tuple(info["shape"]), bytes(info["data"]))
    if not tensors:
        raise AdapterIncomplete("the file contains no weights")
    return tensors, header.get("__metadata__") or {}


def _write(tensors: Mapping[str, Tensor]) -> bytes:
    """Return a safetensors file: an eight-byte length, a JSON header, the data.

    The library writes numpy and torch arrays only, and numpy has no bfloat16.
    """
    header, offset = {}, 0
    for name, tensor in tensors.items():
        end = offset + len(tensor.data)
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format wants the data to begin at a multiple of eight
    return b"".join((struct.pack("<Q", len(text)), text, *(tensor.data for tensor in tensors.values())))


def _by_module(tensors: Mapping[str, Tensor], targets: Mapping[str, list[int]]) -> dict[str, dict[str, Tensor]]:
    """Group tensors by the module that they change, as `A`, `B` or `alpha`."""
    names = _with_fused(targets)
    flat = {name.replace(".", "_"): name for name in names}
    parts: dict[str, dict[str, Tensor]] = {}
    unknown: list[str] = []
    for key, tensor in tensors.items():
        for mark, kind in UNSUPPORTED.items():
            if mark in key:
                raise AdapterKindUnsupported(f"{kind} adapters are not supported, only LoRA")
        module, part = _split(key, flat)
        if module not in names or part is None:
            unknown.append(key)
            continue
        for target, piece in _unfuse(module, part, tensor, targets).items():
            if part in parts.setdefault(target, {}):
                raise AdapterKeysUnknown(f"{_quoted(key)} occurs twice")
            parts[target][part] = piece
    if not parts:
        first = _quoted(unknown[0])
        reason = f"no weight belongs to this model (the first key is {first}): it is for another base model"
        raise AdapterBaseWrong(reason)
    if unknown:
        named = ", ".join(_quoted(key) for key in unknown[:5])
        reason = f"{len(unknown)} of {len(tensors)} keys were not understood: {named}"
        raise AdapterKeysUnknown(reason)
    return parts


def _with_fused(targets: Mapping[str, list[int]]) -> set[str]:
    names = set(targets)
    for name in targets:
        if name.endswith(".attention.to_q"):
            stem = name.removesuffix("to_q")
            names |= {f"{stem}qkv", f"{stem}out"}
    return names


def _split(key: str, flat: Mapping[str, str]) -> tuple[str, str | None]:
    for suffix, part in SUFFIXES.items():
        if key.endswith(suffix):
            name = key.removesuffix(suffix)
            for prefix in FLAT_PREFIXES:
                if name.startswith(prefix):
                    return flat.get(name.removeprefix(prefix), name), part
            for prefix in PREFIXES:
                if name.startswith(prefix):
                    return name.removeprefix(prefix), part
            return name, part
    return key, None


def _unfuse(module: str, part: str, tensor: Tensor, targets: Mapping[str, list[int]]) -> dict[str, Tensor]:
    """Split a tensor of a fused `qkv` module: its parts share A and alpha, and B is cut by rows. Renames `out`."""
    if module in targets:
        return {module: tensor}
    stem = module.rpartition(".")[0]
    if module.endswith(".out"):
        return {f"{stem}.to_out.0": tensor}
    names = [f"{stem}.{name}" for name in ("to_q", "to_k", "to_v")]
    if part != "B":
        return dict.fromkeys(names, tensor)
    heights = [targets[name][0] for name in names]
    if not tensor.shape or tensor.shape[0] != sum(heights):
        raise AdapterShapeWrong(f"{module}: B has {tensor.shape}, not {sum(heights)} rows")
    ends = np.cumsum(heights).tolist()
    return {name: tensor.rows(end - height, end) for name, end, height in zip(names, ends, heights, strict=True)}


def _check(module: str, a: Tensor, b: Tensor, target: list[int], rank_max: int) -> None:
    height, width = target
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[1] != width or b.shape[0] != height:
        shapes = f"A is {list(a.shape)} and B is {list(b.shape)}"
        reason = f"{module}: {shapes}, where this model needs [rank, {width}] and [{height}, rank]"
        raise AdapterShapeWrong(reason)
    if a.shape[0] != b.shape[1] or a.shape[0] == 0:
        raise AdapterShapeWrong(f"{module}: A has rank {a.shape[0]} and B {b.shape[1]}")
    if a.shape[0] > rank_max:
        raise AdapterRankTooLarge(f"{module} has rank {a.shape[0]}; the limit is {rank_max}")
    if not (a.is_finite() and b.is_finite()):
        raise AdapterNotFinite(f"{module} has weights that are not finite numbers")


def _metadata_alpha(metadata: Mapping[str, str]) -> float | None:
    """`lora_alpha` of the PEFT configuration that diffusers writes into the file's metadata, or None."""
    try:
        config = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise AdapterFileInvalid("lora_adapter_metadata is not a JSON object")
    for name, kind in {"use_dora": "DoRA", "use_rslora": "rank-stabilised", "alpha_pattern": "alpha_pattern"}.items():
        if config.get(f"transformer.{name}"):
            raise AdapterKindUnsupported(f"{kind} adapters are not supported, only plain LoRA")
    alpha = config.get("transformer.lora_alpha")
    return float(alpha) if isinstance(alpha, int | float) else None


def _quoted(key: str) -> str:
    return repr(re.sub(r"[^\x20-\x7e]", "?", key)[:120])
