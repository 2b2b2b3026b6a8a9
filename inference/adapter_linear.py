"""Linear layers with room for adapters: what a forward adds to them, row by row.

A `SlotLinear` has a bank of A and a bank of B with a slot for each resident adapter, and a few places for merged
weights. A forward comes with a `Layout`, which says for each stretch of the input which weights and which slots it
takes. Low-rank form: y = W x + scale * alpha / rank * B (A x), Hu et al. 2021; adapters on the same stretch add up.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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


class Group(NamedTuple):
    """Rows side by side and of one length, and an adapter for each of them."""

    start: int
    stop: int
    used: Sequence[tuple[int, float]]  # slot and scale of each row
    slots: Tensor  # [rows]
    scales: Tensor  # [rows, 1, 1]


class Layout:
    """Which inputs of a forward belong to which row: `spans[i]` is (start, stop) of a row that takes `adapters[i]`."""

    def __init__(
        self, spans: Sequence[tuple[int, int]], adapters: Sequence[RowAdapters], device: torch.device | None = None
    ) -> None:
        self.spans = spans
        self.adapters = adapters
        self.groups = [
            Group(run[0][0], run[-1][1], used, *_on(device, used))
            for nth in range(max((len(slots) for slots, _ in adapters), default=0))
            for run, used in self._runs(nth)
        ]

    def _runs(self, nth: int) -> Iterator[tuple[list[tuple[int, int]], list[tuple[int, float]]]]:
        """Rows side by side and of one length that have an `nth` adapter, with what that is."""
        run: list[tuple[int, int]] = []
        used: list[tuple[int, float]] = []
        for (start, stop), (slots, _) in zip(self.spans, self.adapters, strict=True):
            if run and (len(slots) <= nth or run[-1][1] != start or stop - start != run[0][1] - run[0][0]):
                yield run, used
                run, used = [], []
            if len(slots) > nth:
                run.append((start, stop))
                used.append(slots[nth])
        if run:
            yield run, used


def _on(device: torch.device | None, used: Sequence[tuple[int, float]]) -> tuple[Tensor, Tensor]:
    slots, scales = zip(*used, strict=True)
    return torch.tensor(slots, device=device), torch.tensor(scales, device=device)[:, None, None]


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
        self._a = weight.new_zeros(slots, len(layers) * rank_max, self.in_features)
        # Zero but for each layer's block, beyond the rank of what a slot holds too: A may have anything there.
        self._b = weight.new_zeros(slots, len(layers) * rank_max, self.out_features)
        self._ranks = [0] * slots
        self._merged: list[Tensor | None] = [None] * merged_max
        self.product: Callable[..., Tensor] = functional.linear

    def forward(self, x: Tensor, layout: Layout) -> Tensor:  # type: ignore[override]
        y = self._multiplied(x, layout)
        for start, stop, used, slots, scales in layout.groups:
            # One product with A and one with B serve all the layers, and all the rows of a length: calls cost most.
            width = max(self._ranks[slot] for slot, _ in used) * len(self._columns)
            if not width:
                continue
            if len(used) == 1:
                ((slot, scale),) = used
                y[start:stop].addmm_(x[start:stop] @ self._a[slot, :width].T, self._b[slot, :width], alpha=scale)
            else:
                a = self._a[:, :width].index_select(0, slots)
                b = self._b[:, :width].index_select(0, slots).mul_(scales)
                rows = len(used), -1
                y[start:stop].unflatten(0, rows).baddbmm_(x[start:stop].unflatten(0, rows) @ a.mT, b)
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
            return self.product(x, runs[0][0], self.bias)
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
        if rank != self._ranks[slot]:
            self._b[slot].zero_()
        for path, pair, (a, b, _) in zip(self.paths, found, self._matrices(slot, rank), strict=True):
            if pair is None:
                b.zero_()
                continue
            if len(pair[0]) < rank:
                b.zero_()
                a, b = a[: len(pair[0])], b[: len(pair[0])]
            a.copy_(pair[0])
            b.copy_(self._ordered(path, pair[1]).T)
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
        layers = len(self._columns), rank
        blocks_a = self._a[slot, : math.prod(layers)].unflatten(0, layers)
        blocks_b = self._b[slot, : math.prod(layers)].unflatten(0, layers)
        for a, b, (left, right) in zip(blocks_a, blocks_b, self._columns, strict=True):
            yield a, b[:, left:right], (left, right)
