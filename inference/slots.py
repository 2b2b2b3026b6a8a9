"""Linear layers with room for adapters: what a forward adds to them, row by row.

A `SlotLinear` has a bank of A and a bank of B with a slot for each resident adapter, and a few places for merged
weights. A forward comes with a `Layout`, which says for each stretch of the input which weights and which slots it
takes. Low-rank form: y = W x + scale * alpha / rank * B (A x), Hu et al. 2021; adapters on the same stretch add up.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

Used = tuple[tuple[int, float], ...]  # (slot, scale) of each adapter on one row


class RowAdapters(NamedTuple):
    """What one row takes: adapters unmerged from their slots, or the weights merged in a place, not both."""

    slots: Used = ()
    merged: int | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Which inputs of a forward belong to which row: `spans[i]` is (start, stop) of a row that takes `adapters[i]`."""

    spans: Sequence[tuple[int, int]]
    adapters: Sequence[RowAdapters]


class SlotLinear(nn.Linear):
    """Linear layers that read one input, as one matrix: [inputs, in] to [inputs, all their outs side by side]."""

    def __init__(
        self,
        layers: Mapping[str, nn.Linear],
        *,
        orders: Mapping[str, Tensor],
        slots: int,
        rank_max: int,
        merged_max: int,
    ) -> None:
        """`layers` by path; `orders` says for some of them in which order their outputs come."""
        first, *others = layers.values()
        nn.Module.__init__(self)
        self._orders = orders
        parts = [self._ordered(path, layer.weight) for path, layer in layers.items()]
        weight = torch.cat(parts) if others else parts[0]
        self.in_features, self.out_features = first.in_features, len(weight)
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.bias = None if first.bias is None else nn.Parameter(first.bias.detach(), requires_grad=False)
        self.paths = list(layers)
        stops = torch.tensor([layer.out_features for layer in layers.values()]).cumsum(0).tolist()
        self._columns = list(pairwise([0, *stops]))  # of each layer in the output
        # Not filled: a slot's values beyond the rank of what it holds are never read.
        self._a = weight.new_empty(slots, len(layers) * rank_max, self.in_features)
        self._b = weight.new_empty(slots, len(layers) * rank_max, self.out_features)  # zero but for each layer's block
        self._ranks = [0] * slots
        self._merged: list[Tensor | None] = [None] * merged_max

    def forward(self, x: Tensor, layout: Layout) -> Tensor:  # type: ignore[override]
        y = self._multiplied(x, layout)
        for (start, stop), (slots, _) in zip(layout.spans, layout.adapters, strict=True):
            for slot, scale in slots:
                if rank := self._ranks[slot]:
                    # One product with A and one with B serve all the layers: for small rows the calls cost most.
                    used = rank * len(self._columns)
                    low = x[start:stop] @ self._a[slot, :used].T
                    y[start:stop].addmm_(low, self._b[slot, :used], alpha=scale)
        return y

    def _multiplied(self, x: Tensor, layout: Layout) -> Tensor:
        """`x` times the weights that each row takes: one product for each run of rows that take the same."""
        runs: list[tuple[Tensor, int, int]] = []
        for (start, stop), (_, place) in zip(layout.spans, layout.adapters, strict=True):
            merged = None if place is None else self._merged[place]
            weight = self.weight if merged is None else merged
            if runs and runs[-1][0] is weight:
                start = runs.pop()[1]
            runs.append((weight, start, stop))
        if len(runs) == 1:
            return functional.linear(x, runs[0][0], self.bias)
        y = x.new_empty(len(x), self.out_features)
        for weight, start, stop in runs:
            if self.bias is None:
                torch.mm(x[start:stop], weight.T, out=y[start:stop])
            else:
                torch.addmm(self.bias, x[start:stop], weight.T, out=y[start:stop])
        return y

    def _ordered(self, path: str, rows: Tensor) -> Tensor:
        return rows[self._orders[path]] if path in self._orders else rows

    def load(self, slot: int, matrices: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Fill a slot with an adapter's A [rank, in] and B [out, rank] by path; no row that runs may use the slot."""
        found = [matrices.get(path) for path in self.paths]
        rank = max((len(pair[0]) for pair in found if pair), default=0)
        self._b[slot, : rank * len(found)].zero_()
        for path, pair, (a, b, _) in zip(self.paths, found, self._matrices(slot, rank), strict=True):
            own = len(pair[0]) if pair else 0
            if pair:
                a[:own].copy_(pair[0], non_blocking=True)
                b[:own].copy_(self._ordered(path, pair[1]).T, non_blocking=True)
            a[own:].zero_()
        self._ranks[slot] = rank

    def merge(self, place: int, used: Used) -> None:
        """Fill a place with a copy of the weights plus these adapters; no row that runs may use the place.

        Always from the weights as they were loaded: what was added is never subtracted, so nothing drifts.
        """
        used = tuple((slot, scale) for slot, scale in used if self._ranks[slot])
        if not used:
            self._merged[place] = None
            return
        merged = self._merged[place]
        if merged is None:
            merged = self._merged[place] = torch.empty_like(self.weight)
        merged.copy_(self.weight)
        for slot, scale in used:
            for a, b, (left, right) in self._matrices(slot, self._ranks[slot]):
                merged[left:right].addmm_(b.T, a, alpha=scale)

    def _matrices(self, slot: int, rank: int) -> Iterator[tuple[Tensor, Tensor, tuple[int, int]]]:
        """Of each layer, its A [rank, in] and B [rank, out] in a slot, and its columns of the output."""
        for i, (left, right) in enumerate(self._columns):
            block = slice(i * rank, (i + 1) * rank)
            yield self._a[slot, block], self._b[slot, block, left:right], (left, right)
