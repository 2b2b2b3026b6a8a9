"""CUDA graphs for steps too small to keep a GPU busy: all their kernels are launched at once, not one by one.

A graph is for a number of tokens; a smaller step is filled up with tokens that make a row of their own, which nobody
reads. Rows with adapters take other kernels and go without.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inference.slots import Layout, RowAdapters

if TYPE_CHECKING:
    from inference.packed import Packing

# 256 x 256 with a short caption, two of them, 512 x 512: above, a GPU takes longer than its launches (H200).
TOKENS = (320, 640, 1088)
_ROWS_MAX = 8
_PLAIN = RowAdapters()

Through = Callable[[Tensor, "Packing", Tensor, Tensor, Layout], Tensor]
MakePacking = Callable[[Sequence[int], Sequence[RowAdapters]], "Packing"]


class _Graph:
    """The layers, recorded for this many tokens of `_ROWS_MAX` rows at most and one of fill."""

    def __init__(
        self, tokens: int, through: Through, make: MakePacking, x: Tensor, rotation: Tensor, time: Tensor, pool: Any
    ) -> None:
        """The tensors tell the shapes of what comes in, for any number of tokens and rows."""
        rows = _ROWS_MAX + 1
        self._x = x.new_zeros(tokens, *x.shape[1:])
        self._rotation = rotation.new_zeros(tokens, *rotation.shape[1:])
        self._time = time.new_zeros(rows, *time.shape[1:])
        self._packing = make([tokens - _ROWS_MAX, *[1] * _ROWS_MAX], [_PLAIN] * rows)
        self._packing.longest = tokens
        self._packing.stops, self._packing.row_of = self._packing.stops.clone(), self._packing.row_of.clone()
        layout = Layout([(0, rows)], [_PLAIN])

        def forward() -> Tensor:
            return through(self._x, self._packing, self._rotation, self._time, layout)

        forward()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self._y = forward()

    def __call__(self, x: Tensor, packing: "Packing", rotation: Tensor, time: Tensor) -> Tensor:
        tokens, rows = len(x), len(time)
        self._x[:tokens] = x
        self._rotation[:tokens] = rotation
        self._time[:rows] = time
        self._packing.row_of[:tokens] = packing.row_of
        self._packing.row_of[tokens:] = rows
        self._packing.stops[: rows + 1] = packing.stops
        self._packing.stops[rows + 1 :] = len(self._x)
        self._graph.replay()
        return self._y[:tokens]


class LayerGraphs:
    """What `through` does, recorded for a few numbers of tokens."""

    def __init__(self, through: Through, make: MakePacking, x: Tensor, rotation: Tensor, time: Tensor) -> None:
        pool = torch.cuda.graph_pool_handle()  # one for all: they never run at once
        self._graphs = {tokens: _Graph(tokens, through, make, x, rotation, time, pool) for tokens in TOKENS}

    def get(self, tokens: int, adapters: Sequence[RowAdapters]) -> _Graph | None:
        """The smallest graph that fits this many tokens of these rows, if there is one."""
        if len(adapters) > _ROWS_MAX or any(adapter != _PLAIN for adapter in adapters):
            return None
        return next((self._graphs[fit] for fit in TOKENS if tokens <= fit), None)
