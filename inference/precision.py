"""Quantisation to eight bits by torchao: half the memory of bfloat16, for a drift that `easel quality` reports.

Only the large matrices of the layers are quantised. Small weights that affect every token (embedders, modulation,
captions) keep their precision, and so do adapters. Adapters stay unmerged: merged into rounded weights they would be
rounded away.
"""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # the worker's configuration names a precision, and is read before torch is loaded
    from torch import nn

    from inference.packed import PackedTransformer

Precision = Literal["none", "int8", "fp8"]


def quantize(transformer: "PackedTransformer", precision: Precision) -> None:
    """Quantise the weights in place; on CUDA, which has products of eight bits, the activations too."""
    if precision == "none":
        return
    from torch.nn import functional

    # Imported here because it takes a second and most workers serve full precision.
    from torchao import quantization as ao

    from inference.adapter_linear import AdapterLinear
    from inference.kernels import compile_dynamic

    if transformer.device.type == "cuda":
        by_row = ao.Float8DynamicActivationFloat8WeightConfig(granularity=ao.PerRow())
        config = {"int8": ao.Int8DynamicActivationInt8WeightConfig(), "fp8": by_row}[precision]
    else:
        config = {"int8": ao.Int8WeightOnlyConfig(), "fp8": ao.Float8WeightOnlyConfig()}[precision]
    ao.quantize_(transformer.layers, config, filter_fn=_is_large)
    if transformer.device.type == "cuda":
        # Compiled, rounding the activations is one kernel: uncompiled, fp8 was slower than bfloat16 (H200).
        product = compile_dynamic(functional.linear, sizes=[(0, 0)])
        for path, module in transformer.layers.named_modules():
            if isinstance(module, AdapterLinear) and _is_large(module, path):
                module.product = product


def _is_large(module: "nn.Module", path: str) -> bool:
    from inference.adapter_linear import AdapterLinear

    return isinstance(module, AdapterLinear) and "modulation" not in path
