"""The engine: a loop whose every turn advances one batch of the images in flight by one step.

Images that yield, of batches, take only what is idle: while another image is in flight, no image that yields is
prepared, stepped or decoded, and it gives up its adapter slots if the other needs one. So another image waits at most
for what the device is doing at the moment it comes: one step, or the work of `Preparation` on a few images.
"""

import math
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import structlog

from inference import metrics
from inference.attribution import BusyTimeMeter, Clock
from inference.errors import AdapterRejected, DeadlinePassed, OutOfMemory, WorkerStopped
from inference.merging import MergedWeights
from inference.model import LoadedModel
from inference.out_of_memory import run_in_halves
from inference.preparation import Preparation
from inference.residency import SlotAllocator
from inference.rows import ImageRequest, OnPreview, Row
from inference.scheduler import Scheduler

T = TypeVar("T")
_RATE_DECAY = 0.9  # exponential decay of the measured rate of work, per step

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Step:
    """A step that was made: its rows, tokens, distinct adapters, rows on merged weights, and duration."""

    rows: tuple[Row, ...] = ()
    tokens: int = 0
    adapters: int = 0
    merged: int = 0
    seconds: float = 0.0


class Engine:
    """Steps images on a model: in a thread after `start`, else by calls of `step`. Any thread may call `submit`."""

    def __init__(self, model: LoadedModel, *, clock: Clock, scheduler: Scheduler[Row], step_seconds_max: float) -> None:
        """Make an engine whose step takes at most about `step_seconds_max`, unless one row takes longer."""
        self._model = model
        self._clock = clock
        self._scheduler = scheduler
        self._step_seconds_max = step_seconds_max
        self._work_per_second = model.work_per_second
        self._inbox: SimpleQueue[Row] = SimpleQueue()
        self._prepared: SimpleQueue[tuple[Row, Any]] = SimpleQueue()
        self._waiting: list[Row] = []  # for adapter slots
        self._preparing: set[Row] = set()  # rows that are prepared or decoded
        self._adapter_slots: SlotAllocator[str] = SlotAllocator(model.adapter_slots)
        self._awake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self.run, name="engine", daemon=True)
        self.meter = BusyTimeMeter(clock, model.synchronize)
        self._merged = MergedWeights(model, self.meter)
        self._preparation = Preparation(model, self.meter, clock, self._on_prepared)

    def submit(self, request: ImageRequest, *, on_preview: OnPreview | None = None) -> Row:
        """Queue an image. `on_preview` is called with its previews on the engine's thread and must return quickly.

        Raises `SizeUnsupported`, `PromptTooLong` or `AdapterRejected` for a bad request and `WorkerStopped` after
        `close`. Later errors are raised by `Row.result`.
        """
        if self._closing:
            raise WorkerStopped("the worker is stopping")
        if len(request.adapters) > self._model.adapter_slots:
            raise AdapterRejected(
                f"the image has {len(request.adapters)} adapters; at most {self._model.adapter_slots} are possible",
                code="too_many_adapters",
            )
        if not all(math.isfinite(scale) for _, scale in request.adapters):
            raise AdapterRejected("the scale of an adapter must be a finite number", code="adapter_scale_bad")
        prompt_ids = self._model.prompt_ids(request.prompt)
        size = request.width, request.height, len(prompt_ids)
        row = Row(
            request=request,
            prompt_ids=prompt_ids,
            tokens=self._model.step_tokens(*size),
            work=self._model.step_work(*size),
            submitted_at=self._clock(),
            on_preview=on_preview,
        )
        self._inbox.put(row)
        self._awake.set()
        return row

    def start(self) -> None:
        """Start the loop's thread, and the preparation's on a device where two threads get more done than one."""
        if self._model.concurrent:
            # The loop launches kernels without a pause, and the preparation thread needs the GIL within a step.
            sys.setswitchinterval(0.0005)
            self._preparation.start()
        self._thread.start()

    def close(self) -> None:
        """End the threads after their current work; images in flight fail with `WorkerStopped`."""
        self._closing = True
        self._awake.set()
        self._thread.join()

    def run(self) -> None:
        """Step until closed; sleep while there is nothing to do."""
        while not self._closing:
            self._awake.clear()
            try:
                step = self.step()
                if step is None or not step.rows:
                    self._awake.wait()
            except Exception as error:
                # The model's exceptions are caught where it is called, so this is a fault of the engine itself.
                log.exception("engine_fault")
                self._end_all(error)
        self._preparation.close()
        self._take_inbox()
        self._end_all(WorkerStopped("the worker was stopped"))

    def step(self) -> Step | None:
        """Advance one batch by one step and hand on the rows that finished. None when no image is in flight."""
        self._take_inbox()
        others_in_flight = any(not row.yields for row in self._in_flight())
        self._hold_back(others_in_flight)
        self._admit(others_in_flight)
        if not self._preparation.has_thread and self._preparation.work():
            self._take_prepared()
        only_yielding = all(row.yields for row in self._scheduler.rows())
        # A step of rows that yield would slow down the preparation or decoding of the others.
        batch = [] if only_yielding and others_in_flight else self._scheduler.next_batch()
        step = self._advance(batch) if batch else Step()
        for row in batch:
            self._make_preview(row)
        self._retire(batch)
        return step if batch or self._in_flight() else None

    def _in_flight(self) -> list[Row]:
        return [*self._waiting, *self._preparing, *self._scheduler.rows()]

    def _hold_back(self, others_in_flight: bool) -> None:
        """Keep the preparation, and the merged slots, from rows that yield while other rows are in flight."""
        self._preparation.hold_back(others_in_flight)
        if others_in_flight:
            for row in self._scheduler.rows():
                if row.yields:
                    self._merged.release(row)

    def _take_inbox(self) -> None:
        """Take new and prepared rows; end the canceled rows and those past their deadline."""
        self._waiting.extend(_drain(self._inbox))
        self._take_prepared()
        now = self._clock()
        for row in [*self._waiting, *self._scheduler.rows()]:
            is_late = now > row.request.deadline_at
            if reason := row.cancel_reason or (DeadlinePassed("the deadline has passed") if is_late else None):
                self._end(row, reason)
        metrics.ROWS.labels("waiting").set(len(self._waiting))
        metrics.ROWS.labels("preparation").set(len(self._preparing))
        metrics.ROWS.labels("running").set(len(self._scheduler))

    def _admit(self, others_in_flight: bool) -> None:
        """Give adapter slots to waiting rows, the least served tenant's first, and have these rows prepared.

        No row overtakes one that waits for a free slot, except to use adapters that other rows hold in place anyway.
        Rows that yield are admitted only if no others are in flight.
        """
        self._waiting.sort(key=self._scheduler.turn)
        nobody_waits = True
        for row in [row for row in self._waiting if not (row.yields and others_in_flight)]:
            if self._acquire_slots(row, in_use_only=not nobody_waits):
                row.adapter_slots = tuple((self._adapter_slots[sha256], scale) for sha256, scale in row.composition)
                self._waiting.remove(row)
                self._preparing.add(row)
                self._preparation.prepare(row)
            else:
                nobody_waits = False

    def _acquire_slots(self, row: Row, *, in_use_only: bool) -> bool:
        """Take adapter slots for a row, if need be from rows that yield to it; return False if none are free."""
        if self._adapter_slots.acquire(row.adapter_hashes, in_use_only=in_use_only):
            return True
        holders = [other for other in self._scheduler.rows() if other.yields and other.adapter_hashes]
        if row.yields or not holders:
            return False
        for holder in holders:
            self._suspend(holder)
        return self._adapter_slots.acquire(row.adapter_hashes, in_use_only=in_use_only)

    def _suspend(self, row: Row) -> None:
        """Take a row's adapter slots away; it keeps its latents, and is prepared anew when it has slots again."""
        self._scheduler.remove(row)
        self._merged.release(row)
        self._adapter_slots.release(row.adapter_hashes)
        row.adapter_slots = None
        self._waiting.append(row)

    def _on_prepared(self, row: Row, outcome: Any) -> None:
        """Receive a row on the preparation's thread: with a picture, an error, or None if it is ready to step."""
        if outcome is None and row.prepared_at is None:
            row.prepared_at = self._clock()
        self._prepared.put((row, outcome))
        self._awake.set()

    def _take_prepared(self) -> None:
        for row, outcome in _drain(self._prepared):
            if row.done:  # an engine fault has ended it in the meantime
                continue
            self._preparing.remove(row)
            if outcome is None and not row.cancel_reason:
                self._scheduler.add(row)
            else:
                self._end(row, row.cancel_reason or outcome)

    def _advance(self, batch: list[Row]) -> Step:
        started = self._clock()
        self._merged.choose(batch, [row for row in self._scheduler.rows() if row.yields == batch[0].yields])
        # Adjacent rows on the same weights share a product, and adjacent rows of one length share their attention.
        batch.sort(key=lambda row: (-1 if row.weights.merged is None else row.weights.merged, row.tokens))
        run_in_halves(self._denoise, batch, self._end)
        step = Step(
            rows=tuple(batch),
            tokens=sum(row.tokens for row in batch),
            adapters=len({sha256 for row in batch for sha256 in row.adapter_hashes}),
            merged=sum(row.weights.merged is not None for row in batch),
            seconds=self._clock() - started,
        )
        if step.seconds > 0:
            measured = sum(row.work for row in batch) / step.seconds
            before = measured if math.isinf(self._work_per_second) else self._work_per_second
            self._work_per_second = _RATE_DECAY * before + (1 - _RATE_DECAY) * measured
        self._scheduler.work_max = self._work_per_second * self._step_seconds_max
        weights = [row.weights.kind for row in batch]
        metrics.observe_step(seconds=step.seconds, tokens=step.tokens, adapters=step.adapters, weights=weights)
        return step

    def _denoise(self, rows: Sequence[Row]) -> None:
        """Make one Euler step of each row; no row changes unless all of them succeed."""
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
                self._scheduler.lower_tokens_max(tokens)
            raise
        for row, stepped, velocity in zip(rows, latents, velocities, strict=True):
            row.latents, row.velocity = stepped, velocity
            row.steps_done += 1
            if row.first_step_at is None:
                row.first_step_at = self._clock()

    def _make_preview(self, row: Row) -> None:
        """Make a preview if one is due. An error is logged and does not fail the image."""
        if row.on_preview is None or row.done or row.steps_done not in row.request.preview_steps:
            return
        try:
            with self.meter.charge([(row, 1)]):
                preview = self._model.preview(row.denoised)
            row.on_preview(row, row.request.preview_steps.index(row.steps_done), preview)
        except Exception:
            log.exception("preview_failed")

    def _retire(self, batch: list[Row]) -> None:
        for row in batch:
            if not row.done and not row.steps_left:
                row.last_step_at = self._clock()
                self._scheduler.remove(row)
                self._preparing.add(row)
                self._preparation.decode(row)

    def _end(self, row: Row, outcome: Any) -> None:
        """End a row that is not being prepared, with a picture or an exception."""
        if row in self._scheduler:
            self._scheduler.remove(row)
        elif row in self._waiting:
            self._waiting.remove(row)
        if row.adapter_slots is not None:
            self._adapter_slots.release(row.adapter_hashes)
        self._merged.release(row)
        row.latents = row.velocity = row.sequence = None
        row.finished_at = self._clock()
        for seconds_from_arrival, instant_at in (
            (metrics.QUEUE_SECONDS, row.started_at),
            (metrics.FIRST_STEP_SECONDS, row.first_step_at),
            (metrics.IMAGE_SECONDS, None if row.steps_left else row.finished_at),
        ):
            if instant_at is not None:
                seconds_from_arrival.observe(instant_at - row.submitted_at)
        if isinstance(outcome, Exception):
            row.future.set_exception(outcome)
        else:
            row.future.set_result(outcome)

    def _end_all(self, error: Exception) -> None:
        self._take_prepared()
        for row in self._in_flight():
            self._end(row, error)
        self._preparing.clear()


def _drain(queue: SimpleQueue[T]) -> Iterator[T]:
    """Yield the entries that are in a queue now, without waiting for more."""
    with suppress(Empty):
        while True:
            yield queue.get_nowait()
