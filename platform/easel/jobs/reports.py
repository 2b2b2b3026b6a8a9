"""Reads workers' reports: checks the type and the range of every field, once, before anything believes it.

A worker of a dedicated pool may be hostile. What the control plane doesn't know itself is bounded here; what it knows
better than the worker is put right by `easel.jobs.evidence` and `easel.catalog.workers`. Fields that are not in the
tables are ignored, so that newer workers are understood.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, get_args
from uuid import UUID

from easel.jobs.phases import phases_read
from inference.contract import AttemptFinished, AttemptProgress, Outcome, Report, StoredOutput, WorkerBeat

REPORT_BYTES_MAX = 2**18  # of an honest worker: 300 bytes for each attempt that it runs
ATTEMPTS_MAX = 256  # of one beat
CONCURRENCY_MAX = 10_000
_COUNT_MAX = 10**6
_SECONDS_MAX = 10**7  # as the phases of `phases_read`: 115 days
_STARTED_MAX = 4 * 10**9  # Unix seconds: in the year 2096
_IMAGES_MAX = 10  # of a job, and previews of an image
# One line of ASCII, as host names and device names are, without what quotes a label of a metric.
_NAME = re.compile(r"[ !#-\[\]-~]{1,100}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]+")
_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://\S+", re.IGNORECASE)

Check = Callable[[Any], Any]


class ReportRefused(ValueError):
    """A report that no honest worker sends. The message names the first field that is wrong, and not its value."""


def report_read(raw: bytes) -> Report:
    """Parse a report. Raises `ReportRefused`."""
    if len(raw) > REPORT_BYTES_MAX:
        raise ReportRefused(f"the report has over {REPORT_BYTES_MAX} bytes")
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, a number of thousands of digits, or too deep
        raise ReportRefused(f"the report can't be parsed: {type(error).__name__}") from None
    kind = fields.get("kind") if isinstance(fields, dict) else None
    if kind == "beat":
        return WorkerBeat(**_read(fields, BEAT))
    if kind == "finished":
        return AttemptFinished(**_read(fields, FINISHED))
    raise ReportRefused("the report's kind is unknown")


def _read(fields: Mapping[str, Any], table: Mapping[str, tuple[Check, bool]]) -> dict[str, Any]:
    """Return the checked fields of a message. Raises `ReportRefused` for one that is bad, or required and missing."""
    found = {}
    for name, (check, is_required) in table.items():
        if name in fields:
            try:
                found[name] = check(fields[name])
            except ReportRefused:
                raise
            except (ValueError, TypeError, OverflowError):
                raise ReportRefused(f"`{name}` is out of its range") from None
        elif is_required:
            raise ReportRefused(f"`{name}` is missing")
    return found


def _bad(value: Any) -> Any:
    raise ValueError(type(value))


def _whole(low: int, high: int) -> Check:
    return lambda value: value if type(value) is int and low <= value <= high else _bad(value)


def _number(high: float) -> Check:
    def check(value: Any) -> float:
        is_number = type(value) in (int, float) and math.isfinite(value)
        return float(value) if is_number and 0 <= value <= high else _bad(value)

    return check


def _matching(pattern: re.Pattern[str], *, length: int = 100) -> Check:
    return lambda value: value[:length] if isinstance(value, str) and pattern.fullmatch(value) else _bad(value)


def _line(length: int) -> Check:
    """Check a text, and return it as it may be shown: one line, without invisible characters and addresses."""

    def check(value: Any) -> str:
        text = value[: 2 * length] if isinstance(value, str) else _bad(value)
        return _CONTROLS.sub(" ", _ADDRESS.sub("[address]", text))[:length].strip()

    return check


def _token(value: Any) -> str:
    return str(UUID(value)) if isinstance(value, str) and len(value) == 36 else _bad(value)


def _each(check: Check, count_max: int) -> Check:
    def checked(value: Any) -> tuple[Any, ...]:
        return tuple(map(check, value)) if isinstance(value, list) and len(value) <= count_max else _bad(value)

    return checked


def _message(kind: type, table: Mapping[str, tuple[Check, bool]]) -> Check:
    return lambda value: kind(**_read(value, table)) if isinstance(value, dict) else _bad(value)


def _pair(value: Any) -> tuple[int, int]:
    index, number = map(_whole(0, _IMAGES_MAX - 1), value if isinstance(value, list) else _bad(value))
    return index, number


def _outcome(value: Any) -> Any:
    return value if isinstance(value, str) and value in get_args(Outcome) else _bad(value)


def _flag(value: Any) -> bool:
    return value if isinstance(value, bool) else _bad(value)


_worker, _gpu_class = _matching(_NAME), _matching(_NAME, length=40)
_count, _seconds = _whole(0, _COUNT_MAX), _number(_SECONDS_MAX)
_phases: Check = lambda value: phases_read(value) or {}  # noqa: E731 - what can't have been measured is left out

# A check for each field of each message, and whether every worker sends it.
PROGRESS: dict[str, tuple[Check, bool]] = {
    "attempt_token": (_token, True),
    "steps_done": (_count, True),
    "steps_total": (_count, True),
    "previews": (_each(_pair, _IMAGES_MAX**2), False),
    "phases": (_phases, False),
}
BEAT: dict[str, tuple[Check, bool]] = {
    "worker": (_worker, True),
    "gpu_class": (_gpu_class, True),
    "concurrency": (_whole(0, CONCURRENCY_MAX), True),
    "model_version": (_line(200), True),
    "started_at": (_number(_STARTED_MAX), True),
    "busy_seconds": (_number(100 * _SECONDS_MAX), True),
    "attributed_seconds": (_number(100 * _SECONDS_MAX), True),
    "load_seconds": (_seconds, True),
    "attempts": (_each(_message(AttemptProgress, PROGRESS), ATTEMPTS_MAX), False),
}
OUTPUT: dict[str, tuple[Check, bool]] = {
    "index": (_whole(0, _IMAGES_MAX - 1), True),
    "seed": (_whole(0, 2**63 - 1), True),
    "sha256": (_matching(_SHA256), True),
    "size_bytes": (_whole(0, 2**40), True),
}
FINISHED: dict[str, tuple[Check, bool]] = {
    "attempt_token": (_token, True),
    "worker": (_worker, True),
    "gpu_class": (_gpu_class, True),
    "outcome": (_outcome, True),
    "outputs": (_each(_message(StoredOutput, OUTPUT), _IMAGES_MAX), False),
    "gpu_seconds": (_seconds, False),
    "steps_done": (_count, False),
    "wait_seconds": (_seconds, False),
    "run_seconds": (_seconds, False),
    "prompt_tokens": (_count, False),
    "error_code": (_line(60), False),
    "error_message": (_line(2000), False),
    "retryable": (_flag, False),
    "phases": (_phases, False),
}
