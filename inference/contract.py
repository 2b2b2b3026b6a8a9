"""The messages between the control plane and the workers; the only module that both sides import.

Messages go through the Redis namespace of a pool, in two directions:

- The control plane sends a `GenerationTask` as the only argument of the Celery task `TASK_NAME`, on the queue `QUEUE`.
- A worker sends reports (`WorkerBeat`, `AttemptFinished`) to the Redis stream `REPORTS`. Each entry has one field,
  `report`, with the JSON of `report_to_json`.

A worker has no credentials of the database or the object store. A task contains a signed GET URL for each adapter and a
signed PUT URL for each output. Messages are plain JSON. A receiver ignores unknown fields, so either side can be
upgraded first.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

TASK_NAME = "easel.generate"
QUEUE = "generate"
REPORTS = "reports"


def reports_key(namespace: str) -> str:
    """Return the Redis stream for the reports of all workers of a pool."""
    return f"{namespace}:{REPORTS}"


def cancel_key(namespace: str, attempt_token: str) -> str:
    """Return the Redis key whose existence asks the worker to stop an attempt."""
    return f"{namespace}:cancel:{attempt_token}"


class Message:
    """A dataclass as JSON. Reading ignores unknown fields and raises `KeyError` for a missing required one.

    A field that holds a tuple of other messages names their class in its metadata, as `of`.
    """

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        values = {}
        for known in dataclasses.fields(cls):  # type: ignore[arg-type]
            is_required = known.default is dataclasses.MISSING and known.default_factory is dataclasses.MISSING
            if known.name in fields or is_required:
                value, message = fields[known.name], known.metadata.get("of")
                values[known.name] = tuple(message.from_dict(item) for item in value) if message else value
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True, kw_only=True)
class AdapterRef(Message):
    """A file of a LoRA adapter version in canonical form. Its SHA-256 is its key in the worker's cache."""

    name: str
    sha256: str
    size_bytes: int
    scale: float
    url: str


@dataclass(frozen=True, kw_only=True)
class UploadTarget(Message):
    """The destination of one image: PUT it to `url` with `Content-Type: image/<output_format>` and `If-None-Match: *`.

    Previews go to `preview_urls` in the same way, one each. A preview that can't be made is left out.
    """

    index: int
    seed: int
    url: str
    preview_urls: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GenerationTask(Message):
    """One attempt at one job: `len(outputs)` images of `width` x `height` pixels from one prompt.

    `expires_at` (Unix seconds) is the end of the attempt's first lease. A worker drops a task that it receives later,
    because the control plane has then given the job another attempt. `deadline_at` (Unix seconds) is the job's expiry:
    a worker stops the attempt then. The images of a task that `yields` make progress only while the worker has no
    others in flight, and take none of its places (`WorkerBeat.concurrency`).
    """

    attempt_token: str
    job_id: str
    request_id: str
    tenant: str
    model_version: str
    prompt: str
    width: int
    height: int
    steps: int
    output_format: Literal["png", "jpeg", "webp"]
    output_compression: int
    adapters: tuple[AdapterRef, ...] = field(metadata={"of": AdapterRef})
    outputs: tuple[UploadTarget, ...] = field(metadata={"of": UploadTarget})
    expires_at: float
    deadline_at: float | None = None
    yields: bool = False


# In their order. All adapter files are on the worker; the first image is ready for its first step (adapters loaded,
# prompt encoded); the first step of any image is done; the last step of all images is; all images are stored.
Phase = Literal["adapters", "prepared", "first_step", "steps", "stored"]
PHASES: tuple[Phase, ...] = get_args(Phase)


@dataclass(frozen=True, kw_only=True)
class AttemptProgress(Message):
    """The progress of a running attempt. A beat that names an attempt extends its lease.

    `previews` names the stored ones, as (index of the output, number of the preview). `phases` has the seconds from the
    attempt's beginning to each phase that it has reached. Older workers leave them out.
    """

    attempt_token: str
    steps_done: int
    steps_total: int
    previews: tuple[tuple[int, int], ...] = ()
    phases: Mapping[Phase, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class WorkerBeat(Message):
    """The report that a ready worker sends about every second, and in addition when an attempt begins.

    `concurrency` is the number of attempts that the worker runs at a time; 0 if it takes no more work. The seconds are
    totals since the process started: during `busy_seconds` the device worked, of which `attributed_seconds` was
    attributed to images. Loading and warming up the model took `load_seconds`.
    """

    kind: Literal["beat"] = "beat"
    worker: str
    gpu_class: str
    concurrency: int
    model_version: str
    started_at: float
    busy_seconds: float
    attributed_seconds: float
    load_seconds: float
    attempts: tuple[AttemptProgress, ...] = field(default=(), metadata={"of": AttemptProgress})


@dataclass(frozen=True, kw_only=True)
class StoredOutput(Message):
    """An image that the worker has stored."""

    index: int
    seed: int
    sha256: str
    size_bytes: int


Outcome = Literal["succeeded", "failed", "canceled", "expired"]


@dataclass(frozen=True, kw_only=True)
class AttemptFinished(Message):
    """The report that an attempt has ended. The worker repeats it until Redis accepts it; it is applied at most once.

    `gpu_seconds` is the attempt's attributed share of busy time. `retryable` is true if another attempt may succeed
    (the store was unavailable) and false if none can (the request is invalid). `error_code` is empty on success.
    `steps_done` counts the denoising steps of all images, including images that were not finished. `phases` is as in
    `AttemptProgress`.
    """

    kind: Literal["finished"] = "finished"
    attempt_token: str
    worker: str
    gpu_class: str
    outcome: Outcome
    outputs: tuple[StoredOutput, ...] = field(default=(), metadata={"of": StoredOutput})
    gpu_seconds: float = 0.0
    steps_done: int = 0
    wait_seconds: float = 0.0
    run_seconds: float = 0.0
    prompt_tokens: int = 0
    error_code: str = ""
    error_message: str = ""
    retryable: bool = False
    phases: Mapping[Phase, float] = field(default_factory=dict)


Report = WorkerBeat | AttemptFinished
_REPORTS: dict[str, type[WorkerBeat] | type[AttemptFinished]] = {"beat": WorkerBeat, "finished": AttemptFinished}


def report_to_json(report: Report) -> str:
    return json.dumps(report.to_dict(), separators=(",", ":"))


def report_from_json(text: str | bytes) -> Report:
    """Parse a report. Raises `ValueError` for text that is not JSON, an unknown kind, or a missing field."""
    try:
        fields = json.loads(text)
        return _REPORTS[fields["kind"]].from_dict(fields)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the report is invalid: {error!r}") from error
