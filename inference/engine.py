"""The engine: one thread that steps every image in flight, many of them together."""

import threading
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import structlog
from PIL import Image

from inference import metrics
from inference.attribution import Clock, Meter
from inference.errors import OutOfMemory, WorkerStopped
from inference.rows import ImageRequest, Row
from inference.scheduler import Scheduler

log = structlog.get_logger()


class Model(Protocol):
    """What the engine asks of a model; `inference.model.LoadedModel` says what each means."""

    def latent_tokens(self, width: int, height: int) -> int: ...
    def encode(self, prompt: str) -> Any: ...
    def initial_latents(self, seed: int, width: int, height: int) -> Any: ...
    def sigmas(self, steps: int, width: int, height: int) -> list[float]: ...
    def activate(self, adapters: Sequence[tuple[Any, float]]) -> None: ...
    def velocity(self, latents: Sequence[Any], sigmas: Sequence[float], captions: Sequence[Any]) -> list[Any]: ...
    def decode(self, latents: Any) -> Any: ...
    def synchronize(self) -> None: ...


class Engine:
    """Steps images on a model. `submit` from any thread; one thread runs `run` (see `start`)."""

    def __init__(self, model: Model, *, clock: Clock, rows_max: int, tokens_max: int) -> None:
        self._model = model
        self._clock = clock
        self._scheduler: Scheduler[Row] = Scheduler(rows_max=rows_max, tokens_max=tokens_max)
        self._inbox: SimpleQueue[Row] = SimpleQueue()
        self._awake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self.run, name="engine", daemon=True)
        self._last_caption: tuple[tuple[str, str], Any] | None = None
        self.meter = Meter(clock, model.synchronize)

    def submit(self, request: ImageRequest) -> Row:
        """Queue an image. Raises `SizeUnsupported`; whatever else goes wrong is raised by `Row.result`."""
        if self._closing:
            raise WorkerStopped("the worker is stopping")
        row = Row(request, self._model.latent_tokens(request.width, request.height))
        self._inbox.put(row)
        self._awake.set()
        return row

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the thread after its current step; images in flight fail with `WorkerStopped`."""
        self._closing = True
        self._awake.set()
        self._thread.join()

    def run(self) -> None:
        """Step until closed, asleep while there is nothing to do."""
        while not self._closing:
            self._awake.clear()
            try:
                if not self.step():
                    self._awake.wait()
            except Exception as error:
                # What a model may raise is caught where it is called: this is a fault of the engine's own.
                log.exception("engine_fault")
                self._end_all(error)
        self._take_inbox()
        self._end_all(WorkerStopped("the worker was stopped"))

    def _end_all(self, error: Exception) -> None:
        for row in self._scheduler.rows():
            self._end(row, error)

    def step(self) -> bool:
        """Advance one batch by one denoising step. False when no image is in flight."""
        self._take_inbox()
        batch = self._scheduler.next_batch()
        for row in batch:
            if row.started_at is None:
                self._begin(row)
        if alive := [row for row in batch if not row.done]:
            self._advance(alive)
        for row in alive:
            if row.steps_done == row.request.steps and not row.done:
                self._finish(row)
        return bool(batch)

    def _take_inbox(self) -> None:
        """Admit what came in, let go what was canceled."""
        while True:
            try:
                self._scheduler.add(self._inbox.get_nowait())
            except Empty:
                break
        for row in self._scheduler.rows():
            if row.canceled:
                self._end(row, row.canceled)
        waiting = sum(row.started_at is None for row in self._scheduler.rows())
        metrics.ROWS.labels("waiting").set(waiting)
        metrics.ROWS.labels("running").set(len(self._scheduler) - waiting)

    def _begin(self, row: Row) -> None:
        row.started_at = self._clock()
        try:
            with self.meter.charge([row]):
                self._prepare(row)
        except Exception as error:
            self._end(row, error)

    def _prepare(self, row: Row) -> None:
        request = row.request
        # The images of one job come one after the other: the first one's caption serves them all.
        key = (request.tenant, request.prompt)
        if self._last_caption is None or self._last_caption[0] != key:
            self._last_caption = (key, self._model.encode(request.prompt))
        row.caption = self._last_caption[1]
        row.prompt_tokens = row.caption.tokens
        row.sigmas = self._model.sigmas(request.steps, request.width, request.height)
        row.latents = self._model.initial_latents(request.seed, request.width, request.height)

    def _advance(self, rows: list[Row]) -> None:
        """One Euler step of each row. An error fails these rows; too little memory sends them on one by one."""
        begun = self._clock()
        try:
            with self.meter.charge(rows):
                stepped = self._stepped(rows)
        except OutOfMemory as error:
            if len(rows) > 1:
                self._advance_singly(rows)
            else:
                self._end(rows[0], error)
        except Exception as error:
            for row in rows:
                self._end(row, error)
        else:
            for row, latents in zip(rows, stepped, strict=True):
                row.latents = latents
                row.steps_done += 1
            metrics.STEP_SECONDS.observe(self._clock() - begun)
            metrics.STEP_ROWS.observe(len(rows))

    def _advance_singly(self, rows: list[Row]) -> None:
        tokens = sum(row.latent_tokens for row in rows)
        log.warning("batch_out_of_memory", rows=len(rows), latent_tokens=tokens)
        self._scheduler.narrow(tokens)
        for row in rows:
            self._advance([row])

    def _stepped(self, rows: list[Row]) -> list[Any]:
        """The latents of the rows after their next step; the rows themselves stay as they are."""
        self._model.activate(rows[0].adapters)
        velocities = self._model.velocity(
            [row.latents for row in rows],
            [row.sigmas[row.steps_done] for row in rows],
            [row.caption for row in rows],
        )
        return [
            row.latents + (row.sigmas[row.steps_done + 1] - row.sigmas[row.steps_done]) * velocity
            for row, velocity in zip(rows, velocities, strict=True)
        ]

    def _finish(self, row: Row) -> None:
        try:
            with self.meter.charge([row]):
                image = self._model.decode(row.latents)
        except Exception as error:
            self._end(row, error)
        else:
            self._end(row, image)

    def _end(self, row: Row, outcome: Image.Image | Exception) -> None:
        self._scheduler.remove(row)
        row.latents = row.caption = None
        if isinstance(outcome, Exception):
            row.future.set_exception(outcome)
        else:
            row.future.set_result(outcome)
