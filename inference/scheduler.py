"""Which images take the next denoising step together: policy alone, no tensors."""

from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar


class Schedulable(Protocol):
    """One image. Rows of a `group` can share a forward: they have the same adapters at the same scales."""

    @property
    def group(self) -> Hashable: ...

    @property
    def latent_tokens(self) -> int: ...


RowT = TypeVar("RowT", bound=Schedulable)


class Scheduler(Generic[RowT]):
    """Rows in order of arrival; groups take turns, so no group can hold the device.

    Inside a group the oldest row leads and later ones fill the batch, whatever their sizes and steps, up to
    `rows_max` rows and `tokens_max` latent tokens. The leader steps even when it alone is over the budget.
    """

    def __init__(self, *, rows_max: int, tokens_max: int) -> None:
        self._rows_max = rows_max
        self._tokens_max = tokens_max
        self._groups: dict[Hashable, list[RowT]] = {}
        self._turn = 0
        self._last_turn: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._groups.values()))

    def rows(self) -> list[RowT]:
        return [row for rows in self._groups.values() for row in rows]

    def add(self, row: RowT) -> None:
        """A group that is new takes its turn after those that wait already."""
        self._groups.setdefault(row.group, []).append(row)
        self._last_turn.setdefault(row.group, self._turn)

    def remove(self, row: RowT) -> None:
        rows = self._groups[row.group]
        rows.remove(row)
        if not rows:
            del self._groups[row.group], self._last_turn[row.group]

    def next_batch(self) -> list[RowT]:
        """The rows that step next; empty when there are none."""
        if not self._groups:
            return []
        group = min(self._groups, key=self._last_turn.__getitem__)
        self._turn += 1
        self._last_turn[group] = self._turn

        batch: list[RowT] = []
        tokens = 0
        for row in self._groups[group]:
            if not batch or tokens + row.latent_tokens <= self._tokens_max:
                batch.append(row)
                tokens += row.latent_tokens
            if len(batch) == self._rows_max:
                break
        return batch

    def narrow(self, tokens: int) -> None:
        """A batch of this many latent tokens was too much for the device's memory: stay under it."""
        self._tokens_max = min(self._tokens_max, tokens - 1)
