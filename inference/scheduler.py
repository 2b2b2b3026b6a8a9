"""Who takes the next step: policy alone, no tensors and no clock.

Between tenants the one that was served least goes first (virtual-time counters, as in VTC: Sheng et al., OSDI 2024).
Inside a tenant rows go by finish tag, as packets do in weighted fair queueing (Demers et al. 1989): the tenant's clock
when the row came plus the row's whole work, where the clock runs at the work done over the rows that share it. So a
small row overtakes large ones, equal rows end in the order they came, and none waits for ever.
"""

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

# A row at most this many times as large as the one that goes first may share its step: beside a much larger one, a
# small row would take the large one's time for each of its steps.
_LARGER_MAX = 4


class Schedulable(Protocol):
    """A row. `work` is what one step of it costs, in floating point operations."""

    @property
    def tenant(self) -> str: ...

    @property
    def tokens(self) -> int: ...

    @property
    def work(self) -> float: ...

    @property
    def steps_left(self) -> int: ...


RowT = TypeVar("RowT", bound=Schedulable)


class _Queue(Generic[RowT]):
    """The rows of one tenant by finish tag."""

    def __init__(self, served: float) -> None:
        self.served = served
        self.clock = 0.0
        self.tags: dict[RowT, float] = {}

    def add(self, row: RowT) -> None:
        self.tags[row] = self.clock + row.work * row.steps_left

    def in_turn(self) -> Iterator[RowT]:
        return iter(sorted(self.tags, key=self.tags.__getitem__))

    def serve(self, work: float) -> None:
        self.served += work
        self.clock += work / len(self.tags)


class Scheduler(Generic[RowT]):
    """Rows that are ready to step, and the limits of one step.

    A step takes at most `tokens_max` tokens (memory) and `work_max` operations (the time that it takes, and so the
    time that a newcomer waits), and no row much larger than the first, which steps even when alone it is beyond them.
    """

    def __init__(self, *, tokens_max: int, work_max: float = float("inf")) -> None:
        self.tokens_max = tokens_max
        self.work_max = work_max
        self._queues: dict[str, _Queue[RowT]] = {}

    def __len__(self) -> int:
        return sum(len(queue.tags) for queue in self._queues.values())

    def __contains__(self, row: RowT) -> bool:
        return row.tenant in self._queues and row in self._queues[row.tenant].tags

    def rows(self) -> list[RowT]:
        return [row for queue in self._queues.values() for row in queue.tags]

    def add(self, row: RowT) -> None:
        """A tenant that comes back starts level with the least served one: idling saves nothing up."""
        if row.tenant not in self._queues:
            self._queues[row.tenant] = _Queue(min((queue.served for queue in self._queues.values()), default=0.0))
        self._queues[row.tenant].add(row)

    def remove(self, row: RowT) -> None:
        queue = self._queues[row.tenant]
        del queue.tags[row]
        if not queue.tags:
            del self._queues[row.tenant]

    def served(self, tenant: str) -> float:
        """The work done for a tenant, level with the others' counters; one without rows has the least."""
        return self._queues[tenant].served if tenant in self._queues else 0.0

    def next_batch(self) -> list[RowT]:
        """The rows that step next, charged to their tenants; empty when there are none."""
        batch: list[RowT] = []
        tokens, work = 0, 0.0
        for row in self._in_turn():
            if batch and (
                tokens + row.tokens > self.tokens_max
                or work + row.work > self.work_max
                or row.work > _LARGER_MAX * batch[0].work
            ):
                continue
            batch.append(row)
            tokens, work = tokens + row.tokens, work + row.work
        for row in batch:
            self._queues[row.tenant].serve(row.work)
        return batch

    def _in_turn(self) -> Iterator[RowT]:
        """Every row once: the least served tenant's first, each counted as served when it is handed out."""
        served = {tenant: queue.served for tenant, queue in self._queues.items()}
        ordered = {tenant: queue.in_turn() for tenant, queue in self._queues.items()}
        while served:
            tenant = min(served, key=served.__getitem__)
            row = next(ordered[tenant], None)
            if row is None:
                del served[tenant]
            else:
                served[tenant] += row.work
                yield row

    def narrow(self, tokens: int) -> None:
        """A batch of this many tokens was too much for the device's memory: stay under it."""
        self.tokens_max = min(self.tokens_max, tokens - 1)
