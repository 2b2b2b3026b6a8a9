"""The choice between unmerged and merged adapters for the rows of a step, by measured costs."""

from collections.abc import Hashable, Sequence

import structlog

from inference import metrics
from inference.adapter_linear import RowAdapters
from inference.attribution import BusyTimeMeter
from inference.model import LoadedModel
from inference.residency import NEVER_MERGE, SlotAllocator
from inference.rows import Row

log = structlog.get_logger()


class MergedWeights:
    """The merged slots of a model, each with the weights of one composition of adapters, and their use by rows."""

    def __init__(self, model: LoadedModel, meter: BusyTimeMeter) -> None:
        self._model = model
        self._meter = meter
        self._slots: SlotAllocator[Hashable] = SlotAllocator(model.merged_slots)
        self._costs = model.costs

    def choose(self, batch: Sequence[Row], in_flight: Sequence[Row]) -> None:
        """Set `weights` of each row of a step. `in_flight` are all rows that step, in this batch or a later one."""
        for row in batch:
            row.weights = RowAdapters(row.adapter_slots or ())
        for composition in {row.composition for row in batch if row.composition}:
            rows = [row for row in batch if row.composition == composition]
            if self._use_merged(rows, [row for row in in_flight if row.composition == composition]):
                for row in rows:
                    if not row.holds_merged:
                        self._slots.acquire([composition])
                        row.holds_merged = True
                    row.weights = RowAdapters(merged=self._slots[composition])

    def release(self, row: Row) -> None:
        """Drop the row's use of its merged weights, if it has one."""
        if row.holds_merged:
            self._slots.release([row.composition])
            row.holds_merged = False

    def _use_merged(self, rows: Sequence[Row], in_flight: Sequence[Row]) -> bool:
        """Return True if these rows of one composition should use merged weights, after merging them if that pays.

        Nothing is merged for rows that yield: a row that comes meanwhile would wait for it.
        """
        if rows[0].composition in self._slots:
            return self._costs.merged_is_faster(tokens=sum(row.tokens for row in rows))
        if rows[0].yields:
            return False
        token_steps = sum(row.tokens * row.steps_left for row in in_flight)
        steps = max(row.steps_left for row in in_flight)
        return self._costs.merging_pays(token_steps=token_steps, steps=steps) and self._merge(rows)

    def _merge(self, rows: Sequence[Row]) -> bool:
        """Merge the adapters of these rows, at their expense; return False if there is no slot or it fails."""
        first = rows[0]
        if not self._slots.acquire([first.composition]):
            return False
        try:
            with self._meter.charge([(row, row.work) for row in rows]):
                self._model.merge(self._slots[first.composition], first.adapter_slots or ())
        except Exception:
            # Probably for lack of memory. The rows go on unmerged, and nothing is merged again.
            log.exception("merging_failed")
            self._costs = NEVER_MERGE
            self._slots.drop(first.composition)
            return False
        first.holds_merged = True
        metrics.MERGES.inc()
        return True
