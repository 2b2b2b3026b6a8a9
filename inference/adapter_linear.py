"""Linear layers with a bank of LoRA adapters, which each row of a batch combines in its own way.

An `AdapterLinear` has a bank of A and a bank of B matrices with one adapter slot for each resident adapter, and merged
slots with copies of the weights. A forward comes with a `Layout`, which says for each span of the input which weights
and which adapter slots it uses. Unmerged: y = W x + scale * alpha / rank * B (A x), Hu et al. 2021; several adapters of
one span add up.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

ScaledSlots = tuple[tuple[int, float], ...]  # (adapter slot, scale) of each adapter of one row


class RowAdapters(NamedTuple):
    """The weights of one row: adapters unmerged in their adapter slots, or the weights in a merged slot, never both."""

    unmerged: ScaledSlots = ()
    merged: int | None = None

    @property
    def kind(self) -> Literal["base", "unmerged", "merged"]:
        if self.merged is not None:
            return "merged"
        return "unmerged" if self.unmerged else "base"


class RowGroup(NamedTuple):
    """Adjacent rows of equal length with one adapter each."""

    start: int
    stop: int
    scaled_slots: Sequence[tuple[int, float]]  # adapter slot and scale of each row
    slots: Tensor  # [rows], the adapter slots alone
    scales: Tensor  # [rows, 1, 1], the scales alone


class Layout:
    """The rows of a forward's input: `spans[i]` is (start, stop) of the row that uses `adapters[i]`."""

    def __init__(
        self, spans: Sequence[tuple[int, int]], adapters: Sequence[RowAdapters], device: torch.device | None = None
    ) -> None:
        self.spans = spans
        self.adapters = adapters
        self.groups = [
            RowGroup(run[0][0], run[-1][1], scaled, *_tensors(device, scaled))
            for nth in range(max((len(unmerged) for unmerged, _ in adapters), default=0))
            for run, scaled in self._runs(nth)
        ]

    def _runs(self, nth: int) -> Iterator[tuple[list[tuple[int, int]], list[tuple[int, float]]]]:
        """Yield adjacent rows of equal length that have an `nth` unmerged adapter, with that adapter of each row."""
        run: list[tuple[int, int]] = []
        scaled: list[tuple[int, float]] = []
        for (start, stop), (unmerged, _) in zip(self.spans, self.adapters, strict=True):
            if run and (len(unmerged) <= nth or run[-1][1] != start or stop - start != run[0][1] - run[0][0]):
                yield run, scaled
                run, scaled = [], []
            if len(unmerged) > nth:
                run.append((start, stop))
                scaled.append(unmerged[nth])
        if run:
            yield run, scaled


def _tensors(device: torch.device | None, scaled_slots: Sequence[tuple[int, float]]) -> tuple[Tensor, Tensor]:
    slots, scales = zip(*scaled_slots, strict=True)
    return torch.tensor(slots, device=device), torch.tensor(scales, device=device)[:, None, None]


class AdapterLinear(nn.Linear):
    """Linear layers that share one input, fused into one matrix: [inputs, in] to [inputs, sum of their outs]."""

    def __init__(
        self,
        layers: Mapping[str, nn.Linear],
        *,
        output_orders: Mapping[str, Tensor],
        adapter_slots: int,
        rank_max: int,
        merged_slots: int,
    ) -> None:
        """`layers` are named by path; `output_orders` permutes the outputs of some of them."""
        first, *others = layers.values()
        nn.Module.__init__(self)
        self._output_orders = output_orders
        parts = [self._ordered(path, layer.weight) for path, layer in layers.items()]
        weight = torch.cat(parts) if others else parts[0]
        self.in_features, self.out_features = first.in_features, len(weight)
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.bias = None if first.bias is None else nn.Parameter(first.bias.detach(), requires_grad=False)
        self.paths = list(layers)
        stops = torch.tensor([layer.out_features for layer in layers.values()]).cumsum(0).tolist()
        self._columns = list(pairwise([0, *stops]))  # of each layer in the output
        self._a = weight.new_zeros(adapter_slots, len(layers) * rank_max, self.in_features)
        # Block-diagonal by layer. Zero beyond the rank of a slot's adapter, where A may hold stale values.
        self._b = weight.new_zeros(adapter_slots, len(layers) * rank_max, self.out_features)
        self._ranks = [0] * adapter_slots
        self._merged: list[Tensor | None] = [None] * merged_slots
        self.product: Callable[..., Tensor] = functional.linear

    def forward(self, x: Tensor, layout: Layout) -> Tensor:  # type: ignore[override]
        """Return [inputs, out] for `x` [inputs, in], each row with its own weights and adapters."""
        y = self._base_product(x, layout)
        for start, stop, scaled_slots, slots, scales in layout.groups:
            # One product with A and one with B serve all the layers and all rows of a length: launches cost most.
            width = max(self._ranks[slot] for slot, _ in scaled_slots) * len(self._columns)
            if not width:
                continue
            if len(scaled_slots) == 1:
                ((slot, scale),) = scaled_slots
                y[start:stop].addmm_(x[start:stop] @ self._a[slot, :width].T, self._b[slot, :width], alpha=scale)
            else:
                a = self._a[:, :width].index_select(0, slots)
                b = self._b[:, :width].index_select(0, slots).mul_(scales)
                rows = len(scaled_slots), -1
                y[start:stop].unflatten(0, rows).baddbmm_(x[start:stop].unflatten(0, rows) @ a.mT, b)
        return y

    def _base_product(self, x: Tensor, layout: Layout) -> Tensor:
        """Multiply `x` with each row's base or merged weights: one product per run of rows with the same weights."""
        runs: list[tuple[Tensor, int, int]] = []
        for (start, stop), (_, merged_slot) in zip(layout.spans, layout.adapters, strict=True):
            merged = None if merged_slot is None else self._merged[merged_slot]
            weight = self.weight if merged is None else merged
            if runs and runs[-1][0] is weight:
                start = runs.pop()[1]
            runs.append((weight, start, stop))
        if len(runs) == 1:
            return self.product(x, runs[0][0], self.bias)
        y = x.new_empty(len(x), self.out_features)
        for weight, start, stop in runs:
            if self.bias is None:
                torch.mm(x[start:stop], weight.T, out=y[start:stop])
            else:
                torch.addmm(self.bias, x[start:stop], weight.T, out=y[start:stop])
        return y

    def _ordered(self, path: str, rows: Tensor) -> Tensor:
        return rows[self._output_orders[path]] if path in self._output_orders else rows

    def load(self, adapter_slot: int, matrices: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Fill an adapter slot with A [rank, in] and B [out, rank] by path. No running row may use the slot."""
        pairs = [matrices.get(path) for path in self.paths]
        rank = max((len(pair[0]) for pair in pairs if pair), default=0)
        if rank != self._ranks[adapter_slot]:
            self._b[adapter_slot].zero_()
        for path, pair, (a, b, _) in zip(self.paths, pairs, self._matrices(adapter_slot, rank), strict=True):
            if pair is None:
                b.zero_()
                continue
            if len(pair[0]) < rank:
                b.zero_()
                a, b = a[: len(pair[0])], b[: len(pair[0])]
            a.copy_(pair[0])
            b.copy_(self._ordered(path, pair[1]).T)
        self._ranks[adapter_slot] = rank

    def merge(self, merged_slot: int, scaled_slots: ScaledSlots) -> None:
        """Fill a merged slot with the weights plus these adapters. No running row may use the slot.

        It starts from the weights as they were loaded and never subtracts, so rounding errors do not add up.
        """
        scaled_slots = tuple((slot, scale) for slot, scale in scaled_slots if self._ranks[slot])
        if not scaled_slots:
            self._merged[merged_slot] = None
            return
        merged = self._merged[merged_slot]
        if merged is None:
            merged = self._merged[merged_slot] = torch.empty_like(self.weight)
        merged.copy_(self.weight)
        for slot, scale in scaled_slots:
            for a, b, (left, right) in self._matrices(slot, self._ranks[slot]):
                merged[left:right].addmm_(b.T, a, alpha=scale)

    def _matrices(self, adapter_slot: int, rank: int) -> Iterator[tuple[Tensor, Tensor, tuple[int, int]]]:
        """Yield for each layer views of its A [rank, in] and B [rank, out] in a slot, and its columns of the output."""
        layers = len(self._columns), rank
        blocks_a = self._a[adapter_slot, : math.prod(layers)].unflatten(0, layers)
        blocks_b = self._b[adapter_slot, : math.prod(layers)].unflatten(0, layers)
        for a, b, (left, right) in zip(blocks_a, blocks_b, self._columns, strict=True):
            yield a, b[:, left:right], (left, right)
