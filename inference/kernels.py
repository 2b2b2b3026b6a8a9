"""The operations between the matrix products of a transformer block, as plain PyTorch or one compiled kernel each."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional

from inference.packing import Packing


def attention(q: Tensor, k: Tensor, v: Tensor, packing: Packing) -> Tensor:
    """Attend from each row's tokens to that row alone; arguments and result are [tokens, heads, head_dim]."""
    if not packing.attends_by_run:
        from torch.nn.attention.varlen import varlen_attn

        boundaries, longest = packing.boundaries, packing.longest
        return cast(Tensor, varlen_attn(q, k, v, boundaries, boundaries, longest, longest))
    sizes = [length * rows for length, rows in packing.runs]
    parts = zip(packing.runs, *(x.split(sizes) for x in (q, k, v)), strict=True)
    attended = [
        functional.scaled_dot_product_attention(*(x.unflatten(0, (rows, length)).transpose(1, 2) for x in qkv))
        for (length, rows), *qkv in parts
    ]
    flat = [x.transpose(1, 2).flatten(0, 1) for x in attended]
    return flat[0] if len(flat) == 1 else torch.cat(flat)


def half_split_order(x: Tensor) -> Tensor:
    """Return the order of a head's values [head_dim] that puts the two of each rotated pair half a head apart."""
    return torch.arange(len(x), device=x.device).view(-1, 2).T.flatten()


def _rms(x: Tensor, eps: float) -> Tensor:
    """Divide `x` by the root mean square of its last dimension, without the norm's weight."""
    return functional.rms_norm(x, x.shape[-1:], eps=eps)


def _modulate(modulation: Tensor, norms: Tensor) -> Tensor:
    """Combine each row's scale, gate, scale, gate [rows, 4 * dim] with the four norms' weights: [4, rows, dim]."""
    scale_1, gate_1, scale_2, gate_2 = modulation.chunk(4, dim=-1)
    return torch.stack([1 + scale_1, gate_1.tanh(), 1 + scale_2, gate_2.tanh()]).mul_(norms[:, None])


def _norm(x: Tensor, weights: Tensor, row_of: Tensor, eps: float) -> Tensor:
    # `index_select` is ten times faster on a CPU than indexing.
    return _rms(x, eps).mul_(weights.index_select(0, row_of))


def _add(x: Tensor, branch: Tensor, gates: Tensor, row_of: Tensor, eps: float) -> Tensor:
    """Add to the residual `x` a branch's normed output times its row's gate, which includes the norm's weight."""
    return torch.addcmul(x, _rms(branch, eps), gates.index_select(0, row_of))


def _add_norm(
    x: Tensor, branch: Tensor, gates: Tensor, weights: Tensor, row_of: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    x = _add(x, branch, gates, row_of, eps)
    return x, _norm(x, weights, row_of, eps)


def _swiglu(x: Tensor) -> Tensor:
    gate, up = x.chunk(2, dim=-1)
    return functional.silu(gate).mul_(up)


def _rotate(x: Tensor, weight: Tensor, rotation: Tensor, eps: float) -> Tensor:
    """Norm queries and keys [tokens, 2, heads, head_dim] and rotate each pair by its token's angle, in float32.

    The two of a pair are half a head apart (see `half_split_order`): on neighbours this took seven times longer.
    """
    normed = _rms(x, eps).mul_(weight).float()
    cosines, sines = rotation.unbind(1)
    first, second = normed.chunk(2, dim=-1)
    # In place: each new tensor of this size costs a CPU more than the arithmetic.
    return torch.cat((second, first), dim=-1).mul_(sines).addcmul_(normed, cosines).type_as(x)


class BlockKernels(NamedTuple):
    """The operations between the products of a block; `compile` makes each one kernel for any tokens and rows."""

    modulate: Callable[[Tensor, Tensor], Tensor] = _modulate
    norm: Callable[[Tensor, Tensor, Tensor, float], Tensor] = _norm
    add: Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor] = _add
    add_norm: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]] = _add_norm
    swiglu: Callable[[Tensor], Tensor] = _swiglu
    rotate: Callable[[Tensor, Tensor, Tensor, float], Tensor] = _rotate

    @classmethod
    def compiled(cls) -> "BlockKernels":
        """Kernels that are compiled at their first use, which is the model's warm-up."""
        tokens = [(argument, 0) for argument in range(5)]
        return cls(
            modulate=compile_dynamic(_modulate, sizes=[], counts=[0]),
            norm=compile_dynamic(_norm, sizes=[tokens[0], tokens[2]], counts=[1]),
            add=compile_dynamic(_add, sizes=[tokens[0], tokens[1], tokens[3]], counts=[2]),
            add_norm=compile_dynamic(_add_norm, sizes=[tokens[0], tokens[1], tokens[4]], counts=[2, 3]),
            swiglu=compile_dynamic(_swiglu, sizes=tokens[:1]),
            rotate=compile_dynamic(_rotate, sizes=[tokens[0], tokens[2]]),
        )


def compile_dynamic(
    function: Callable[..., Any], *, sizes: Sequence[tuple[int, int]], counts: Sequence[int] = ()
) -> Callable[..., Any]:
    """Compile `function` once for all `sizes`: (argument, dimension) pairs that vary and are never 1.

    `counts` are arguments with any number of rows, 1 included. Declaring every size dynamic instead gave kernels that
    were three to six times slower (H200).
    """
    kernel = torch.compile(function)
    marked: set[int] = set()  # widths whose first call declared what is dynamic

    def call(*arguments: Any) -> Any:
        if (width := arguments[0].shape[-1]) not in marked:
            marked.add(width)
            for argument, dimension in sizes:
                torch._dynamo.mark_dynamic(arguments[argument], dimension)
            for argument in counts:
                torch._dynamo.decorators.mark_unbacked(arguments[argument], 0)
        return kernel(*arguments)

    return call
