"""The messages that the control plane and the workers exchange; the only module both sides import.

Two directions, both through the Redis namespace of a pool:

- a `GenerationTask` goes out as the one argument of the Celery task `TASK_NAME` on the queue `QUEUE`;
- reports (`WorkerBeat`, `AttemptFinished`) come back as entries of the Redis stream `REPORTS`, each entry
  holding one field, `report`, with the JSON of `report_to_json`.

A worker holds neither database nor bucket credentials: every adapter arrives as a signed GET URL and every
output leaves by a signed PUT URL, both inside the task. Messages are plain JSON, so either side can be upgraded
first: unknown fields of a newer sender are ignored.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

TASK_NAME = "easel.generate"
QUEUE = "generate"
REPORTS = "reports"


def reports_key(namespace: str) -> str:
    """The Redis stream that carries the reports of every worker of a pool."""
    return f"{namespace}:{REPORTS}"


def cancel_key(namespace: str, attempt_token: str) -> str:
    """The Redis key whose existence asks the worker to stop this attempt."""
    return f"{namespace}:cancel:{attempt_token}"


class Message:
    """JSON for a flat dataclass: unknown fields are ignored, missing ones raise `KeyError`."""

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        known = dataclasses.fields(cls)  # type: ignore[arg-type]
        return cls(**{f.name: fields[f.name] for f in known if f.name in fields or _required(f)})

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]


def _required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


@dataclass(frozen=True, kw_only=True)
class AdapterRef(Message):
    """A LoRA adapter version in canonical form, by content: the hash names it in the worker's cache."""

    name: str
    sha256: str
    size_bytes: int
    scale: float
    url: str


@dataclass(frozen=True, kw_only=True)
class UploadTarget(Message):
    """Where one image goes: PUT it to `url` with `Content-Type: image/<output_format>` and `If-None-Match: *`.

    To each of `preview_urls` goes, likewise, what the image looks like on its way; one that can't be had is left out.
    """

    index: int
    seed: int
    url: str
    preview_urls: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GenerationTask(Message):
    """One attempt at one job: `len(outputs)` images of `width` x `height` pixels from one prompt.

    `expires_at` (Unix seconds) is the end of the attempt's first lease: a task met later than that is dropped
    unread, since the control plane has by then given the job to another attempt. `deadline_at` (Unix seconds) is the
    job's own: from then on nobody wants the images.
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
    adapters: tuple[AdapterRef, ...]
    outputs: tuple[UploadTarget, ...]
    expires_at: float
    deadline_at: float | None = None

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        return super().from_dict(
            {
                **fields,
                "adapters": tuple(AdapterRef.from_dict(a) for a in fields["adapters"]),
                "outputs": tuple(UploadTarget.from_dict(o) for o in fields["outputs"]),
            }
        )


@dataclass(frozen=True, kw_only=True)
class AttemptProgress(Message):
    """How far a running attempt is; being named in a beat also extends the attempt's lease.

    `previews` names those that are stored, as (index of the output, number of the preview).
    """

    attempt_token: str
    steps_done: int
    steps_total: int
    previews: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class WorkerBeat(Message):
    """Sent every second or so by a worker that is ready to take work, and once more as an attempt begins.

    The seconds are totals since the process started: `busy_seconds` is time the device worked, of which
    `attributed_seconds` was given to rows and `load_seconds` (model load, warm-up) to the pool.
    """

    kind: Literal["beat"] = "beat"
    worker: str
    gpu_class: str
    slots: int
    model_version: str
    started_at: float
    busy_seconds: float
    attributed_seconds: float
    load_seconds: float
    attempts: tuple[AttemptProgress, ...] = ()

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        attempts = tuple(AttemptProgress.from_dict(a) for a in fields.get("attempts", ()))
        return super().from_dict({**fields, "attempts": attempts})


@dataclass(frozen=True, kw_only=True)
class StoredOutput(Message):
    """An image as it was stored."""

    index: int
    seed: int
    sha256: str
    size_bytes: int


Outcome = Literal["succeeded", "failed", "canceled", "expired"]


@dataclass(frozen=True, kw_only=True)
class AttemptFinished(Message):
    """The end of an attempt; sent until Redis has taken it, and applied by the control plane at most once.

    `gpu_seconds` is the attempt's attributed share of busy time. `retryable` says whether another attempt
    could succeed (storage was away) or not (the request can't be served). `error_code` is empty on success.
    `steps_done` counts the denoising steps of all the images, also of those that were given up.
    """

    kind: Literal["finished"] = "finished"
    attempt_token: str
    worker: str
    gpu_class: str
    outcome: Outcome
    outputs: tuple[StoredOutput, ...] = ()
    gpu_seconds: float = 0.0
    steps_done: int = 0
    wait_seconds: float = 0.0
    run_seconds: float = 0.0
    prompt_tokens: int = 0
    error_code: str = ""
    error_message: str = ""
    retryable: bool = False

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        outputs = tuple(StoredOutput.from_dict(o) for o in fields.get("outputs", ()))
        return super().from_dict({**fields, "outputs": outputs})


Report = WorkerBeat | AttemptFinished
_REPORTS: dict[str, type[WorkerBeat] | type[AttemptFinished]] = {
    "beat": WorkerBeat,
    "finished": AttemptFinished,
}


def report_to_json(report: Report) -> str:
    return json.dumps(report.to_dict(), separators=(",", ":"))


def report_from_json(text: str | bytes) -> Report:
    """Raises `ValueError` for what is no report: not JSON, an unknown kind, or a field missing."""
    try:
        fields = json.loads(text)
        return _REPORTS[fields["kind"]].from_dict(fields)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a report: {error!r}") from error
