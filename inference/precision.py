"""Weights in eight bits, by torchao: half the memory of bfloat16, for a drift that `easel quality` reports.

Only the large matrices of the layers are quantised. What is small and touches every token's meaning (embedders,
modulation, captions) keeps its precision, and so do adapters, which are added unmerged: merged into rounded weights
they would be rounded away.
"""

from typing import Literal

from torch import nn
from torch.nn import functional

from inference.packed import PackedTransformer, compiled
from inference.slots import SlotLinear

Precision = Literal["none", "int8", "fp8"]


def quantize(transformer: PackedTransformer, precision: Precision) -> None:
    """Quantise the weights in place: with the activations on CUDA, which has such products, else alone."""
    if precision == "none":
        return
    # Imported here: it takes a second, and most workers serve full precision.
    from torchao import quantization as ao

    if transformer.device.type == "cuda":
        by_row = ao.Float8DynamicActivationFloat8WeightConfig(granularity=ao.PerRow())
        config = {"int8": ao.Int8DynamicActivationInt8WeightConfig(), "fp8": by_row}[precision]
    else:
        config = {"int8": ao.Int8WeightOnlyConfig(), "fp8": ao.Float8WeightOnlyConfig()}[precision]
    ao.quantize_(transformer.layers, config, filter_fn=_is_large)
    if transformer.device.type == "cuda":
        # Rounding activations is many passes over them, or one kernel: uncompiled, fp8 was slower than bfloat16 (H200).
        product = compiled(functional.linear, sizes=[(0, 0)])
        for path, module in transformer.layers.named_modules():
            if isinstance(module, SlotLinear) and _is_large(module, path):
                module.product = product


def _is_large(module: nn.Module, path: str) -> bool:
    return isinstance(module, SlotLinear) and "modulation" not in path
