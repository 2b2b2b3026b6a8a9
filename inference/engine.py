"""The engine: one loop that advances every image in flight, many of them together, each by one step at a time."""

import math
import sys
import threading
from collections.abc import Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import structlog

from inference import metrics
from inference.attribution import Clock, Meter
from inference.errors import AdapterRejected, DeadlinePassed, OutOfMemory, WorkerStopped
from inference.residency import NEVER_MERGE, Places
from inference.rows import ImageRequest, Row, Shown
from inference.scheduler import Scheduler
from inference.slots import RowAdapters
from inference.stage import Model, Stage, in_parts

T = TypeVar("T")
_RATE_KEPT = 0.9  # of the rate of work measured so far, at each step

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did: `adapters` counts distinct ones, `merged` the rows that took merged weights."""

    rows: tuple[Row, ...] = ()
    tokens: int = 0
    adapters: int = 0
    merged: int = 0
    seconds: float = 0.0


class Engine:
    """Steps images on a model. `submit` from any thread; one thread runs `run` (see `start`), or calls `step`."""

    def __init__(self, model: Model, *, clock: Clock, scheduler: Scheduler[Row], step_seconds_max: float) -> None:
        """A step takes about `step_seconds_max` at most, unless one row alone takes longer."""
        self._model = model
        self._clock = clock
        self._scheduler = scheduler
        self._step_seconds_max = step_seconds_max
        self._work_per_second = model.work_per_second
        self._inbox: SimpleQueue[Row] = SimpleQueue()
        self._staged: SimpleQueue[tuple[Row, Any]] = SimpleQueue()
        self._waiting: list[Row] = []  # for room in the slots
        self._at_stage: set[Row] = set()
        self._slots: Places[str] = Places(model.slots)
        self._merged: Places[Hashable] = Places(model.merged_max)
        self._costs = model.costs
        self._awake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self.run, name="engine", daemon=True)
        self.meter = Meter(clock, model.synchronize)
        self._stage = Stage(model, self.meter, clock, self._came_back)

    def submit(self, request: ImageRequest, *, shown: Shown | None = None) -> Row:
        """Queue an image; `shown` gets its previews, on the engine's thread, and must not keep that.

        Raises what is wrong with the request itself: `SizeUnsupported`, `PromptTooLong`, `AdapterRejected`. Whatever
        goes wrong later is raised by `Row.result`.
        """
        if self._closing:
            raise WorkerStopped("the worker is stopping")
        if len(request.adapters) > self._model.slots:
            raise AdapterRejected(
                f"{len(request.adapters)} adapters on one image; at most {self._model.slots} fit",
                code="too_many_adapters",
            )
        if not all(math.isfinite(scale) for _, scale in request.adapters):
            raise AdapterRejected("the scale of an adapter is a finite number", code="adapter_scale_bad")
        prompt_ids = self._model.prompt_ids(request.prompt)
        measures = request.width, request.height, len(prompt_ids)
        row = Row(
            request,
            prompt_ids=prompt_ids,
            tokens=self._model.step_tokens(*measures),
            work=self._model.step_work(*measures),
            now=self._clock(),
            shown=shown,
        )
        self._inbox.put(row)
        self._awake.set()
        return row

    def start(self) -> None:
        if self._model.concurrent:
            # The loop launches kernels without a pause, and the stage needs its turn at Python within a step.
            sys.setswitchinterval(0.0005)
            self._stage.start()
        self._thread.start()

    def close(self) -> None:
        """End the threads after their current work; images in flight fail with `WorkerStopped`."""
        self._closing = True
        self._awake.set()
        self._thread.join()

    def run(self) -> None:
        """Step until closed, asleep while there is nothing to do."""
        while not self._closing:
            self._awake.clear()
            try:
                step = self.step()
                if step is None or not step.rows:
                    self._awake.wait()
            except Exception as error:
                # What a model may raise is caught where it is called: this is a fault of the engine's own.
                log.exception("engine_fault")
                self._end_all(error)
        self._stage.close()
        self._take_inbox()
        self._end_all(WorkerStopped("the worker was stopped"))

    def step(self) -> Step | None:
        """Advance a batch by one step, and send on what that finished. None when no image is in flight."""
        self._take_inbox()
        self._admit()
        if not self._stage.threaded and self._stage.work():
            self._take_staged()
        batch = self._scheduler.next_batch()
        step = self._advance(batch) if batch else Step()
        for row in batch:
            self._show(row)
        self._retire(batch)
        return step if batch or self._waiting or self._at_stage else None

    def _take_inbox(self) -> None:
        """Let in what came, let go what was canceled or is too late."""
        self._waiting.extend(_drained(self._inbox))
        self._take_staged()
        now = self._clock()
        for row in [*self._waiting, *self._scheduler.rows()]:
            if why := row.canceled or (DeadlinePassed("its time was up") if now > row.request.deadline else None):
                self._end(row, why)
        metrics.ROWS.labels("waiting").set(len(self._waiting))
        metrics.ROWS.labels("stage").set(len(self._at_stage))
        metrics.ROWS.labels("running").set(len(self._scheduler))

    def _admit(self) -> None:
        """Give slots to those that wait, the least served tenant's first, and send them to be prepared.

        Nobody overtakes a row that waits for room, except onto adapters that others hold in place anyway.
        """
        self._waiting.sort(key=lambda row: self._scheduler.served(row.tenant))
        room = True
        for row in list(self._waiting):
            if self._slots.take(row.hashes, in_use_only=not room):
                row.slots = tuple((self._slots[sha256], scale) for sha256, scale in row.composition)
                row.has_slots = True
                self._waiting.remove(row)
                self._at_stage.add(row)
                self._stage.prepare(row)
            else:
                room = False

    def _came_back(self, row: Row, outcome: Any) -> None:
        """From the stage, on its thread: a picture, an error, or None for a row that can step."""
        self._staged.put((row, outcome))
        self._awake.set()

    def _take_staged(self) -> None:
        for row, outcome in _drained(self._staged):
            if row.done:  # ended meanwhile by a fault
                continue
            self._at_stage.remove(row)
            if outcome is None and not row.canceled:
                self._scheduler.add(row)
            else:
                self._end(row, row.canceled or outcome)

    def _advance(self, batch: list[Row]) -> Step:
        begun = self._clock()
        for row in batch:
            row.weights = RowAdapters(row.slots)
        for composition in {row.composition for row in batch if row.composition}:
            self._choose_weights([row for row in batch if row.composition == composition])
        # Side by side, rows that take the same weights share a product, and rows of one length share their attention.
        batch.sort(key=lambda row: (-1 if row.weights.merged is None else row.weights.merged, row.tokens))
        in_parts(self._denoise, batch, self._end)
        seconds = self._clock() - begun
        work = sum(row.work for row in batch)
        if seconds > 0:
            measured = work / seconds
            kept = measured if math.isinf(self._work_per_second) else self._work_per_second
            self._work_per_second = _RATE_KEPT * kept + (1 - _RATE_KEPT) * measured
        self._scheduler.work_max = self._work_per_second * self._step_seconds_max
        step = Step(
            rows=tuple(batch),
            tokens=sum(row.tokens for row in batch),
            adapters=len({sha256 for row in batch for sha256 in row.hashes}),
            merged=sum(row.weights.merged is not None for row in batch),
            seconds=seconds,
        )
        metrics.observe_step(step)
        return step

    def _choose_weights(self, rows: list[Row]) -> None:
        """Unmerged or merged, for the rows of a step with one composition of adapters: what was measured to cost less.

        New weights are merged if all that is left to do for rows in flight pays for it.
        """
        composition = rows[0].composition
        if composition not in self._merged:
            left = [row for row in self._scheduler.rows() if row.composition == composition]
            token_steps = sum(row.tokens * row.steps_left for row in left)
            steps = max(row.steps_left for row in left)
            if not self._costs.merging_pays(token_steps=token_steps, steps=steps) or not self._merge(rows):
                return
        elif not self._costs.merged_is_faster(tokens=sum(row.tokens for row in rows)):
            return
        for row in rows:
            if not row.holds_merged:
                self._merged.take([composition])
                row.holds_merged = True
            row.weights = RowAdapters(merged=self._merged[composition])

    def _merge(self, rows: list[Row]) -> bool:
        """Make the merged weights of these rows, who asked for them; False where there is no room."""
        first = rows[0]
        if not self._merged.take([first.composition]):
            return False
        first.holds_merged = True
        try:
            with self.meter.charge([(row, row.work) for row in rows]):
                self._model.merge(self._merged[first.composition], first.slots)
        except Exception:
            # For want of memory, most likely. The rows go on unmerged, and nobody tries again.
            log.exception("merging_failed")
            self._costs = NEVER_MERGE
            self._merged.drop(first.composition)
            first.holds_merged = False
        else:
            metrics.MERGES.inc()
        return first.holds_merged

    def _denoise(self, rows: Sequence[Row]) -> None:
        """One Euler step of each row; the rows stay as they are unless all of it succeeds."""
        try:
            with self.meter.charge([(row, row.work) for row in rows]):
                velocities = self._model.velocity(
                    [row.latents for row in rows],
                    [row.sigma for row in rows],
                    [row.sequence for row in rows],
                    [row.weights for row in rows],
                )
                latents = [
                    row.latents + (row.sigmas[row.steps_done + 1] - row.sigma) * velocity
                    for row, velocity in zip(rows, velocities, strict=True)
                ]
        except OutOfMemory:
            tokens = sum(row.tokens for row in rows)
            log.warning("step_out_of_memory", rows=len(rows), tokens=tokens)
            if len(rows) > 1:
                self._scheduler.narrow(tokens)
            raise
        for row, stepped, velocity in zip(rows, latents, velocities, strict=True):
            row.latents, row.velocity = stepped, velocity
            row.steps_done += 1
            if row.first_step_at is None:
                row.first_step_at = self._clock()

    def _show(self, row: Row) -> None:
        """A preview, where one is due. An image does not fail for want of one."""
        if row.shown is None or row.done or row.steps_done not in row.request.preview_steps:
            return
        try:
            with self.meter.charge([(row, 1)]):
                preview = self._model.preview(row.denoised)
            row.shown(row, row.request.preview_steps.index(row.steps_done), preview)
        except Exception:
            log.exception("preview_failed")

    def _retire(self, batch: list[Row]) -> None:
        for row in batch:
            if not row.done and not row.steps_left:
                self._scheduler.remove(row)
                self._at_stage.add(row)
                self._stage.decode(row)

    def _end(self, row: Row, outcome: Any) -> None:
        if row in self._scheduler:
            self._scheduler.remove(row)
        elif row in self._waiting:
            self._waiting.remove(row)
        if row.has_slots:
            self._slots.release(row.hashes)
        if row.holds_merged:
            self._merged.release([row.composition])
        row.latents = row.velocity = row.sequence = None
        row.finished_at = self._clock()
        metrics.observe_end(row)
        if isinstance(outcome, Exception):
            row.future.set_exception(outcome)
        else:
            row.future.set_result(outcome)

    def _end_all(self, error: Exception) -> None:
        self._take_staged()
        for row in [*self._waiting, *self._scheduler.rows(), *self._at_stage]:
            self._end(row, error)
        self._at_stage.clear()


def _drained(queue: SimpleQueue[T]) -> Iterator[T]:
    """What is in a queue now, without waiting."""
    with suppress(Empty):
        while True:
            yield queue.get_nowait()
