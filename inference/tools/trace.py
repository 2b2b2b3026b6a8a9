"""Reads the requests of a trace file and checks their form, without torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REQUIRED = {"prompt": str, "width": int, "height": int, "steps": int, "seed": int}
_OPTIONAL = {"tenant": str, "join_step": int, "cancel_step": int, "adapters": list}
_MIN = {"width": 1, "height": 1, "steps": 1, "seed": 0, "join_step": 0, "cancel_step": 0}


class TraceError(ValueError):
    """The trace cannot be run; the message gives the place, the reason and a code."""

    def __init__(self, place: str, reason: str, code: str) -> None:
        super().__init__(f"{place}: {reason} ({code})")


def read_requests(path: Path) -> list[dict[str, Any]]:
    """Read the requests of a trace file; their adapters' files are not looked at. Raises `TraceError`."""
    try:
        trace = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise TraceError(str(path), str(error), "trace_unreadable") from error
    requests = trace.get("requests") if isinstance(trace, dict) else None
    if not isinstance(requests, list) or not requests:
        raise TraceError(str(path), "`requests` must be a list of at least one request", "trace_invalid")
    for number, fields in enumerate(requests):
        place = place_of(path, number)
        _check(fields, place, REQUIRED, _OPTIONAL)
        for index, adapter in enumerate(fields.get("adapters", [])):
            _check(adapter, f"{place}, adapter {index}", {"name": str}, {"scale": (int, float)})
    return requests


def place_of(path: Path, number: int) -> str:
    """Name the request with that number, from 0, in messages."""
    return f"{path}, request {number}"


def _check(fields: Any, place: str, required: Mapping[str, Any], optional: Mapping[str, Any]) -> None:
    if not isinstance(fields, dict):
        raise TraceError(place, "not an object", "trace_invalid")
    types = {**required, **optional}
    if missing := [name for name in required if name not in fields]:
        raise TraceError(place, f"lacks {', '.join(missing)}", "trace_invalid")
    for name, value in fields.items():
        if name not in types:
            raise TraceError(place, f"`{name}` is unknown; known are {', '.join(types)}", "trace_invalid")
        if not isinstance(value, types[name]) or isinstance(value, bool) or value < _MIN.get(name, value):
            raise TraceError(place, f"`{name}` cannot be {json.dumps(value)}", "trace_invalid")
