"""Attempts at jobs: from the task message to the report of the end."""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import NamedTuple

import httpx
import structlog
from PIL import Image

from inference import metrics
from inference.attribution import Clock
from inference.contract import (
    AttemptFinished,
    AttemptProgress,
    GenerationTask,
    Outcome,
    Phase,
    StoredOutput,
    UploadTarget,
)
from inference.engine import Engine
from inference.errors import Canceled, DeadlinePassed, GenerationError, TransferError, WorkerStopped, WrongModel
from inference.rows import ImageRequest, Row
from inference.worker.adapter_store import AdapterStore
from inference.worker.logs import bound_to
from inference.worker.outputs import store_output

_SEEN_MAX = 10_000

log = structlog.get_logger()


class _Preview(NamedTuple):
    row: Row
    number: int
    image: Image.Image


class Attempt:
    """A live attempt: its task, its rows in the engine, and the reason to give it up, if there is one."""

    def __init__(self, task: GenerationTask, *, now: float, unix_now: float) -> None:
        """`now` is the time on the engine's clock, `unix_now` the same instant in Unix seconds."""
        self.task = task
        self.started_at = now
        self.adapters_at: float | None = None  # when all adapter files were here
        self.stored_at: float | None = None  # when all images were stored
        self.deadline_at = math.inf if task.deadline_at is None else now + task.deadline_at - unix_now
        self.rows: list[Row] = []
        self.previews: list[tuple[int, int]] = []  # stored ones: (index of the output, number of the preview)
        self.events: SimpleQueue[_Preview | Row] = SimpleQueue()  # previews to store, and rows that ended
        self._lock = threading.Lock()
        self._give_up_reason: GenerationError | None = None

    def give_up(self, reason: GenerationError) -> None:
        """Cancel the rows that exist and those still to come. Any thread may call it; the first reason stays."""
        with self._lock:
            self._give_up_reason = self._give_up_reason or reason
            for row in self.rows:
                row.cancel(reason)

    def add(self, row: Row) -> None:
        with self._lock:
            self.rows.append(row)
            if self._give_up_reason:
                row.cancel(self._give_up_reason)

    def progress(self) -> AttemptProgress:
        return AttemptProgress(
            attempt_token=self.task.attempt_token,
            steps_done=sum(row.steps_done for row in list(self.rows)),
            steps_total=self.task.steps * len(self.task.outputs),
            previews=tuple(self.previews),
            phases=self.phases(),
        )

    def phases(self) -> dict[Phase, float]:
        """Return the seconds from the beginning to each phase that was reached."""
        rows = list(self.rows)
        last_steps = [row.last_step_at for row in rows if row.last_step_at is not None]
        reached: dict[Phase, float | None] = {
            "adapters": self.adapters_at,
            "prepared": min((row.prepared_at for row in rows if row.prepared_at is not None), default=None),
            "first_step": min((row.first_step_at for row in rows if row.first_step_at is not None), default=None),
            "steps": max(last_steps) if len(last_steps) == len(self.task.outputs) else None,
            "stored": self.stored_at,
        }
        return {phase: round(now - self.started_at, 6) for phase, now in reached.items() if now is not None}


@dataclass(kw_only=True, eq=False)
class Attempts:
    """The attempts of this process. Each attempt's thread calls `run`; any thread may call the rest.

    `clock` is the engine's. `on_begin` is called before the work of an attempt, `on_finish` with its end.
    """

    engine: Engine
    adapters: AdapterStore
    client: httpx.Client
    clock: Clock
    worker: str
    gpu_class: str
    model_versions: tuple[str, ...]
    on_begin: Callable[[], None]
    on_preview_stored: Callable[[], None]
    on_finish: Callable[[AttemptFinished], None]

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._live: dict[str, Attempt] = {}
        self._seen: OrderedDict[str, None] = OrderedDict()

    def _live_attempts(self) -> list[Attempt]:
        with self._lock:
            return list(self._live.values())

    def progress(self) -> tuple[AttemptProgress, ...]:
        return tuple(attempt.progress() for attempt in self._live_attempts())

    def cancel(self, attempt_token: str) -> None:
        """Cancel an attempt; an unknown token has no effect."""
        with self._lock:
            attempt = self._live.get(attempt_token)
        if attempt:
            attempt.give_up(Canceled("canceled"))

    def stop(self, *, only_yielding: bool = False) -> None:
        """Give up all live attempts, or those that yield, for another worker to repeat: the process is about to end."""
        for attempt in [one for one in self._live_attempts() if one.task.yields or not only_yielding]:
            attempt.give_up(WorkerStopped("the worker was stopped"))

    def run(self, task: GenerationTask, *, now: float) -> None:
        """Generate and store a task's images and report the end or error, at most once. `now` is in Unix seconds."""
        with bound_to(task):
            if now > task.expires_at:
                log.info("task_expired", late_seconds=round(now - task.expires_at, 3))
                return
            attempt = self._admit(task, now)
            if attempt is None:
                log.warning("task_delivered_twice")
                return
            log.info("attempt_began", outputs=len(task.outputs), adapters=len(task.adapters))
            self.on_begin()
            end = self._generate(attempt)
            self.on_finish(end)
            with self._lock:
                del self._live[task.attempt_token]
            metrics.IMAGES.labels(end.outcome).inc(len(task.outputs))
            seconds = {name: round(getattr(end, name), 4) for name in ("gpu_seconds", "wait_seconds", "run_seconds")}
            log.info("attempt_finished", outcome=end.outcome, error_code=end.error_code or None, **seconds)

    def _admit(self, task: GenerationTask, unix_now: float) -> Attempt | None:
        """Register the attempt; return None if this process has seen it before."""
        with self._lock:
            if task.attempt_token in self._seen:
                return None
            self._seen[task.attempt_token] = None
            if len(self._seen) > _SEEN_MAX:
                self._seen.popitem(last=False)
            attempt = Attempt(task, now=self.clock(), unix_now=unix_now)
            self._live[task.attempt_token] = attempt
            return attempt

    def _generate(self, attempt: Attempt) -> AttemptFinished:
        stored: list[StoredOutput] = []
        error: GenerationError | None = None
        try:
            targets = dict(zip(self._submit(attempt), attempt.task.outputs, strict=True))
            while len(stored) < len(targets):
                event = attempt.events.get()
                if isinstance(event, Row):
                    target = targets[event]
                    stored.append(store_output(self.client, attempt.task, target, target.url, event.result()))
                elif self._store_preview(attempt.task, targets[event.row], event):
                    attempt.previews.append((targets[event.row].index, event.number))
                    self.on_preview_stored()
            attempt.stored_at = self.clock()
        except GenerationError as expected:
            error = expected
        except Exception:
            log.exception("attempt_failed")
            error = GenerationError("the worker met an unexpected error")
        if error:
            # A job succeeds with all of its images or not at all: stop the others, and wait until their time is final.
            attempt.give_up(error)
            for row in attempt.rows:
                row.wait()
        return self._end(attempt, error, tuple(sorted(stored, key=lambda output: output.index)))

    def _store_preview(self, task: GenerationTask, target: UploadTarget, preview: _Preview) -> bool:
        """Store a preview in the size of the final image; return False if the storage did not accept it."""
        image = preview.image.resize((task.width, task.height))
        try:
            store_output(self.client, task, target, target.preview_urls[preview.number], image)
        except TransferError as error:
            log.warning("preview_lost", reason=str(error))
            return False
        return True

    def _submit(self, attempt: Attempt) -> list[Row]:
        task = attempt.task
        if task.model_version not in self.model_versions:
            raise WrongModel(f"this worker serves {', '.join(self.model_versions)}, not {task.model_version}")
        adapters = tuple((self.adapters.get(ref), ref.scale) for ref in task.adapters)
        attempt.adapters_at = self.clock()
        for target in task.outputs:
            request = ImageRequest(
                prompt=task.prompt,
                width=task.width,
                height=task.height,
                steps=task.steps,
                seed=target.seed,
                adapters=adapters,
                tenant=task.tenant,
                deadline_at=attempt.deadline_at,
                previews=len(target.preview_urls),
                yields=task.yields,
            )
            row = self.engine.submit(request, on_preview=lambda *preview: attempt.events.put(_Preview(*preview)))
            row.on_done(attempt.events.put)
            attempt.add(row)
        return attempt.rows

    def _end(
        self, attempt: Attempt, error: GenerationError | None, stored: tuple[StoredOutput, ...]
    ) -> AttemptFinished:
        now = self.clock()
        work_started_at = min((row.started_at for row in attempt.rows if row.started_at is not None), default=now)
        outcomes: dict[type, Outcome] = {type(None): "succeeded", Canceled: "canceled", DeadlinePassed: "expired"}
        outcome = outcomes.get(type(error), "failed")
        failure = error if outcome == "failed" else None
        return AttemptFinished(
            attempt_token=attempt.task.attempt_token,
            worker=self.worker,
            gpu_class=self.gpu_class,
            outcome=outcome,
            outputs=stored,
            gpu_seconds=sum(row.gpu_seconds for row in attempt.rows),
            steps_done=sum(row.steps_done for row in attempt.rows),
            wait_seconds=work_started_at - attempt.started_at,
            run_seconds=now - work_started_at,
            prompt_tokens=max((row.prompt_tokens for row in attempt.rows), default=0),
            error_code=failure.code if failure else "",
            error_message=str(failure) if failure else "",
            retryable=failure.retryable if failure else False,
            phases=attempt.phases(),
        )
