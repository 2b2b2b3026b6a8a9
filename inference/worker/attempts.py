"""One attempt at a job, from the message to the report of how it ended."""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from queue import SimpleQueue
from typing import NamedTuple

import httpx
import structlog
from PIL import Image

from inference import metrics
from inference.attribution import Clock
from inference.contract import AttemptFinished, AttemptProgress, GenerationTask, Outcome, StoredOutput, UploadTarget
from inference.engine import Engine
from inference.errors import Canceled, DeadlinePassed, GenerationError, TransferError, WorkerStopped, WrongModel
from inference.rows import ImageRequest, Row
from inference.worker.adapter_store import AdapterStore
from inference.worker.logs import bound_to
from inference.worker.outputs import store_output

_SEEN_MAX = 10_000

log = structlog.get_logger()


class _Shown(NamedTuple):
    row: Row
    number: int
    image: Image.Image


class Attempt:
    """A live attempt: its rows in the engine, and whether it is to be given up."""

    def __init__(self, task: GenerationTask, begun: float, begun_at: float) -> None:
        """`begun` is on the engine's clock, `begun_at` in Unix seconds."""
        self.task = task
        self.begun = begun
        self.deadline = math.inf if task.deadline_at is None else begun + task.deadline_at - begun_at
        self.rows: list[Row] = []
        self.previews: list[tuple[int, int]] = []  # that are stored
        self.happened: SimpleQueue[_Shown | Row] = SimpleQueue()  # previews to store, and rows that ended
        self._lock = threading.Lock()
        self._why: GenerationError | None = None

    def give_up(self, why: GenerationError) -> None:
        """From any thread: cancel the rows there are and those still to come. The first reason stays."""
        with self._lock:
            self._why = self._why or why
            for row in self.rows:
                row.cancel(why)

    def add(self, row: Row) -> None:
        with self._lock:
            self.rows.append(row)
            if self._why:
                row.cancel(self._why)

    def progress(self) -> AttemptProgress:
        return AttemptProgress(
            attempt_token=self.task.attempt_token,
            steps_done=sum(row.steps_done for row in list(self.rows)),
            steps_total=self.task.steps * len(self.task.outputs),
            previews=tuple(self.previews),
        )


class Attempts:
    """The attempts of this process. `run` is called by one thread per attempt; the rest from anywhere."""

    def __init__(
        self,
        *,
        engine: Engine,
        adapters: AdapterStore,
        client: httpx.Client,
        clock: Clock,
        worker: str,
        gpu_class: str,
        model_versions: tuple[str, ...],
        begins: Callable[[], None],
        news: Callable[[], None],
        finished: Callable[[AttemptFinished], None],
    ) -> None:
        """`begins` is told before the work of an attempt, `news` of a preview, `finished` how it ended.

        `clock` is the engine's.
        """
        self._engine = engine
        self._adapters = adapters
        self._client = client
        self._clock = clock
        self._worker = worker
        self._gpu_class = gpu_class
        self._model_versions = model_versions
        self._begins = begins
        self._news = news
        self._finished = finished
        self._lock = threading.Lock()
        self._live: dict[str, Attempt] = {}
        self._seen: OrderedDict[str, None] = OrderedDict()

    def progress(self) -> tuple[AttemptProgress, ...]:
        with self._lock:
            live = list(self._live.values())
        return tuple(attempt.progress() for attempt in live)

    def cancel(self, attempt_token: str) -> None:
        with self._lock:
            attempt = self._live.get(attempt_token)
        if attempt:
            attempt.give_up(Canceled("canceled"))

    def stop(self) -> None:
        """The process is to end: give up all that runs, for another worker to repeat."""
        with self._lock:
            live = list(self._live.values())
        for attempt in live:
            attempt.give_up(WorkerStopped("the worker was stopped"))

    def run(self, task: GenerationTask, *, now: float) -> None:
        """Generate, store, report. Nothing is raised and nothing reported twice; `now` is Unix seconds."""
        with bound_to(task):
            if now > task.expires_at:
                log.info("task_expired", late_seconds=round(now - task.expires_at, 3))
                return
            attempt = self._admit(task, now)
            if attempt is None:
                log.warning("task_delivered_twice")
                return
            log.info("attempt_began", outputs=len(task.outputs), adapters=len(task.adapters))
            self._begins()
            end = self._generate(attempt)
            self._finished(end)
            with self._lock:
                del self._live[task.attempt_token]
            metrics.IMAGES.labels(end.outcome).inc(len(task.outputs))
            log.info(
                "attempt_finished",
                outcome=end.outcome,
                error_code=end.error_code or None,
                gpu_seconds=round(end.gpu_seconds, 4),
                wait_seconds=round(end.wait_seconds, 4),
                run_seconds=round(end.run_seconds, 4),
            )

    def _admit(self, task: GenerationTask, now: float) -> Attempt | None:
        with self._lock:
            if task.attempt_token in self._seen:
                return None
            self._seen[task.attempt_token] = None
            if len(self._seen) > _SEEN_MAX:
                self._seen.popitem(last=False)
            self._live[task.attempt_token] = attempt = Attempt(task, self._clock(), now)
            return attempt

    def _generate(self, attempt: Attempt) -> AttemptFinished:
        task = attempt.task
        stored: list[StoredOutput] = []
        error: GenerationError | None = None
        try:
            slots = dict(zip(self._submit(attempt), task.outputs, strict=True))
            while len(stored) < len(slots):
                news = attempt.happened.get()
                if isinstance(news, Row):
                    stored.append(self._store(task, slots[news].url, slots[news], news.result()))
                elif self._store_preview(task, slots[news.row], news):
                    attempt.previews.append((slots[news.row].index, news.number))
                    self._news()
        except GenerationError as expected:
            error = expected
        except Exception:
            log.exception("attempt_broke")
            error = GenerationError("the worker met an unexpected error")
        if error:
            # A job is all of its images or none: the others needn't go on, and their time must be final.
            attempt.give_up(error)
            for row in attempt.rows:
                row.wait()
        return self._end(attempt, error, tuple(sorted(stored, key=lambda output: output.index)))

    def _store(self, task: GenerationTask, url: str, slot: UploadTarget, image: Image.Image) -> StoredOutput:
        return store_output(
            self._client,
            slot,
            url,
            image,
            output_format=task.output_format,
            output_compression=task.output_compression,
        )

    def _store_preview(self, task: GenerationTask, slot: UploadTarget, shown: _Shown) -> bool:
        """In the size of the image to come; False where the storage has no room for it now."""
        try:
            self._store(task, slot.preview_urls[shown.number], slot, shown.image.resize((task.width, task.height)))
        except TransferError as error:
            log.warning("preview_lost", reason=str(error))
            return False
        return True

    def _submit(self, attempt: Attempt) -> list[Row]:
        task = attempt.task
        if task.model_version not in self._model_versions:
            raise WrongModel(f"this worker serves {', '.join(self._model_versions)}, not {task.model_version}")
        adapters = tuple((self._adapters.get(ref), ref.scale) for ref in task.adapters)
        for slot in task.outputs:
            request = ImageRequest(
                prompt=task.prompt,
                width=task.width,
                height=task.height,
                steps=task.steps,
                seed=slot.seed,
                adapters=adapters,
                tenant=task.tenant,
                deadline=attempt.deadline,
                previews=len(slot.preview_urls),
            )
            row = self._engine.submit(request, shown=lambda *shown: attempt.happened.put(_Shown(*shown)))
            row.when_done(attempt.happened.put)
            attempt.add(row)
        return attempt.rows

    def _end(
        self, attempt: Attempt, error: GenerationError | None, stored: tuple[StoredOutput, ...]
    ) -> AttemptFinished:
        now = self._clock()
        started = min((row.started_at for row in attempt.rows if row.started_at is not None), default=now)
        outcome: Outcome = "succeeded" if error is None else "failed"
        if isinstance(error, Canceled):
            outcome = "canceled"
        elif isinstance(error, DeadlinePassed):
            outcome = "expired"
        failure = error if outcome == "failed" else None
        return AttemptFinished(
            attempt_token=attempt.task.attempt_token,
            worker=self._worker,
            gpu_class=self._gpu_class,
            outcome=outcome,
            outputs=stored,
            gpu_seconds=sum(row.gpu_seconds for row in attempt.rows),
            steps_done=sum(row.steps_done for row in attempt.rows),
            wait_seconds=started - attempt.begun,
            run_seconds=now - started,
            prompt_tokens=max((row.prompt_tokens for row in attempt.rows), default=0),
            error_code=failure.code if failure else "",
            error_message=str(failure) if failure else "",
            retryable=failure.retryable if failure else False,
        )
