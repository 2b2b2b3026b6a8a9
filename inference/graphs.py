"""CUDA graphs for steps too small to keep a GPU busy: all kernels are launched at once instead of one by one.

They save only launch time. A graph has a fixed number of tokens; a smaller step is padded with tokens that form a row
of their own, which nobody reads. Steps with adapters use other kernels and run without a graph. To remove graphs, drop
`PackedTransformer.record` and its use in `forward`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from inference.adapter_linear import Layout, RowAdapters
from inference.packing import Packing

# 256 x 256 with a short caption, two of them, 512 x 512: above, a GPU takes longer than its launches (H200).
GRAPH_TOKENS = (320, 640, 1088)
_ROWS_MAX = 8
_BASE = RowAdapters()

Layers = Callable[[Tensor, Packing, Tensor, Tensor, Layout], Tensor]


class _Graph:
    """The layers, recorded for `tokens` tokens in at most `_ROWS_MAX` rows and one row of padding."""

    def __init__(self, tokens: int, layers: Layers, x: Tensor, rotation: Tensor, time: Tensor, pool: Any) -> None:
        """`x`, `rotation` and `time` give the shapes of the inputs beyond their first dimension."""
        rows = _ROWS_MAX + 1
        self._x = x.new_zeros(tokens, *x.shape[1:])
        self._rotation = rotation.new_zeros(tokens, *rotation.shape[1:])
        self._time = time.new_zeros(rows, *time.shape[1:])
        packing = self._packing = Packing([tokens - _ROWS_MAX, *[1] * _ROWS_MAX], [_BASE] * rows, x.device)
        packing.longest = tokens
        # Replays write to these, and the originals are cached for other packings.
        packing.boundaries, packing.row_of = packing.boundaries.clone(), packing.row_of.clone()
        layout = Layout([(0, rows)], [_BASE])

        def forward() -> Tensor:
            return layers(self._x, packing, self._rotation, self._time, layout)

        forward()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self._y = forward()

    def __call__(self, x: Tensor, packing: Packing, rotation: Tensor, time: Tensor) -> Tensor:
        tokens, rows = len(x), len(time)
        self._x[:tokens] = x
        self._rotation[:tokens] = rotation
        self._time[:rows] = time
        self._packing.row_of[:tokens] = packing.row_of
        self._packing.row_of[tokens:] = rows
        self._packing.boundaries[: rows + 1] = packing.boundaries
        self._packing.boundaries[rows + 1 :] = len(self._x)
        self._graph.replay()
        return self._y[:tokens]


class LayerGraphs:
    """Recordings of `layers`, one for each number of tokens in `GRAPH_TOKENS`."""

    def __init__(self, layers: Layers, x: Tensor, rotation: Tensor, time: Tensor) -> None:
        pool = torch.cuda.graph_pool_handle()  # shared, because graphs never run at the same time
        self._graphs = {tokens: _Graph(tokens, layers, x, rotation, time, pool) for tokens in GRAPH_TOKENS}

    def get(self, tokens: int, adapters: Sequence[RowAdapters]) -> _Graph | None:
        """Return the smallest graph with room for `tokens` tokens of these rows; None if there is none."""
        if len(adapters) > _ROWS_MAX or any(adapter != _BASE for adapter in adapters):
            return None
        return next((self._graphs[fit] for fit in GRAPH_TOKENS if tokens <= fit), None)
