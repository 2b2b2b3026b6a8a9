"""The choice of rows for the next step. Policy alone: no tensors and no clock.

Between tenants, the least served goes first (virtual-time counters as in VTC: Sheng et al., OSDI 2024). Within a
tenant, rows are ordered by finish tag as in weighted fair queueing (Demers et al. 1989): the tenant's virtual clock at
the row's arrival plus the row's total work, where the virtual clock advances by the work done divided by the number of
rows. So a small row overtakes large ones, equal rows finish in the order of their arrival, and no row starves.

Rows that yield, of batches, are chosen only while there are no others, by the same rules among themselves, and count
against no tenant's others.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

# A row joins a step only if its work is at most this many times the first row's: beside a much larger row, each step
# of a small one would take as long as the large one's.
_WORK_RATIO_MAX = 4


class Schedulable(Protocol):
    """A row; `work` is the floating point operations of one of its steps, `tokens` the tokens of one."""

    @property
    def tenant(self) -> str: ...

    @property
    def yields(self) -> bool: ...

    @property
    def tokens(self) -> int: ...

    @property
    def work(self) -> float: ...

    @property
    def steps_left(self) -> int: ...


RowT = TypeVar("RowT", bound=Schedulable)


_Key = tuple[bool, str]  # the rows of a tenant that yield, or those that don't


def _key(row: Schedulable) -> _Key:
    return row.yields, row.tenant


@dataclass(eq=False, slots=True)
class _Queue(Generic[RowT]):
    """One tenant's rows that yield, or those that don't, with their finish tags, and the work done for them."""

    served: float
    virtual_clock: float = 0.0
    finish_tags: dict[RowT, float] = field(default_factory=dict)


class Scheduler(Generic[RowT]):
    """Rows that are ready to step, and the limits of one step.

    A step has at most `tokens_max` tokens, which bounds its memory, and `work_max` operations, which bounds its time
    and so the wait of a new row. It has no row much larger than the first. The first row steps even if it alone
    exceeds the limits.
    """

    def __init__(self, *, tokens_max: int, work_max: float = float("inf")) -> None:
        self.tokens_max = tokens_max
        self.work_max = work_max
        self._queues: dict[_Key, _Queue[RowT]] = {}

    def __len__(self) -> int:
        return sum(len(queue.finish_tags) for queue in self._queues.values())

    def __contains__(self, row: RowT) -> bool:
        key = _key(row)
        return key in self._queues and row in self._queues[key].finish_tags

    def rows(self) -> list[RowT]:
        return [row for queue in self._queues.values() for row in queue.finish_tags]

    def add(self, row: RowT) -> None:
        """Add a row. A returning tenant starts level with the least served one: idle time earns no credit."""
        key = _key(row)
        if key not in self._queues:
            alike = (queue.served for (yields, _), queue in self._queues.items() if yields == row.yields)
            self._queues[key] = _Queue(min(alike, default=0.0))
        queue = self._queues[key]
        queue.finish_tags[row] = queue.virtual_clock + row.work * row.steps_left

    def remove(self, row: RowT) -> None:
        key = _key(row)
        queue = self._queues[key]
        del queue.finish_tags[row]
        if not queue.finish_tags:
            del self._queues[key]

    def turn(self, row: RowT) -> tuple[bool, float]:
        """Return what rows that wait for the scheduler are ordered by: those that yield last, then by the work done for
        their tenant, on the scale of the other tenants' counters; 0 for a tenant without rows."""
        key = _key(row)
        return row.yields, self._queues[key].served if key in self._queues else 0.0

    def next_batch(self) -> list[RowT]:
        """Choose the rows of the next step and count their work as served; empty when there are no rows."""
        batch: list[RowT] = []
        tokens, work = 0, 0.0
        for row in self._by_turn():
            if batch and (
                tokens + row.tokens > self.tokens_max
                or work + row.work > self.work_max
                or row.work > _WORK_RATIO_MAX * batch[0].work
            ):
                continue
            batch.append(row)
            tokens, work = tokens + row.tokens, work + row.work
        for row in batch:
            queue = self._queues[_key(row)]
            queue.served += row.work
            queue.virtual_clock += row.work / len(queue.finish_tags)
        return batch

    def _by_turn(self) -> Iterator[RowT]:
        """Generate every row that may step once, always from the least served tenant, as if each had been served."""
        only_yielding = all(yields for yields, _ in self._queues)
        queues = {key: queue for key, queue in self._queues.items() if key[0] == only_yielding}
        served = {key: queue.served for key, queue in queues.items()}
        by_tenant = {
            key: iter(sorted(queue.finish_tags, key=queue.finish_tags.__getitem__)) for key, queue in queues.items()
        }
        while served:
            key = min(served, key=served.__getitem__)
            row = next(by_tenant[key], None)
            if row is None:
                del served[key]
            else:
                served[key] += row.work
                yield row

    def lower_tokens_max(self, tokens: int) -> None:
        """Keep later steps below `tokens`, which was too much for the device's memory."""
        self.tokens_max = min(self.tokens_max, tokens - 1)
