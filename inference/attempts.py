"""One attempt at a job, from the message to the report of how it ended."""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable

import httpx
import structlog

from inference import metrics
from inference.adapter_store import AdapterStore
from inference.attribution import Clock
from inference.contract import AttemptFinished, AttemptProgress, GenerationTask, Outcome, StoredOutput
from inference.engine import Engine
from inference.errors import Canceled, DeadlinePassed, GenerationError, WorkerStopped, WrongModel
from inference.logs import bound_to
from inference.outputs import store_output
from inference.rows import ImageRequest, Row

_SEEN_MAX = 10_000

log = structlog.get_logger()


class Attempt:
    """A live attempt: its rows in the engine, and whether it is to be given up."""

    def __init__(self, task: GenerationTask, begun: float, begun_at: float) -> None:
        """`begun` is on the engine's clock, `begun_at` in Unix seconds."""
        self.task = task
        self.begun = begun
        self.deadline = math.inf if task.deadline_at is None else begun + task.deadline_at - begun_at
        self.rows: list[Row] = []
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
        began: Callable[[], None],
        finished: Callable[[AttemptFinished], None],
    ) -> None:
        """`began` is told when an attempt begins, `finished` how it ended. `clock` is the engine's."""
        self._engine = engine
        self._adapters = adapters
        self._client = client
        self._clock = clock
        self._worker = worker
        self._gpu_class = gpu_class
        self._model_versions = model_versions
        self._began = began
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
            self._began()
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
        stored = []
        error: GenerationError | None = None
        try:
            for slot, row in zip(task.outputs, self._submit(attempt), strict=True):
                stored.append(
                    store_output(
                        self._client,
                        slot,
                        row.result(),
                        output_format=task.output_format,
                        output_compression=task.output_compression,
                    )
                )
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
        return self._end(attempt, error, tuple(stored))

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
            )
            attempt.add(self._engine.submit(request))
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
