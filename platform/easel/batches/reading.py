"""Reads the lines of a batch's file, and finds the faults of all of them."""

import json
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from datetime import datetime
from typing import IO, Any, NamedTuple
from uuid import UUID, uuid4

from core.errors import DomainError
from core.text import is_line, json_text
from easel.batches.errors import (
    CustomIdInvalid,
    CustomIdRepeated,
    LineFieldsInvalid,
    LineNotJson,
    LinesMissing,
    LinesTooMany,
    LineTooLong,
    MethodInvalid,
    UrlMismatched,
)
from easel.batches.files import lines_of
from easel.batches.models import Batch, Line
from easel.catalog.models import Pool
from easel.config import Config
from easel.jobs.errors import PromptBlocked
from easel.jobs.plan import job_plan
from easel.jobs.readings import prompt_clean
from easel.jobs.spec import RequestedAdapter, Spec, prompt_validate

LINES_MAX = 10_000
LINE_BYTES_MAX = 100_000
FAULTS_MAX = 1000  # shown of a file; one with more is refused as well
_FIELDS = {"custom_id", "method", "url", "body"}
_SPEC_FIELDS = tuple(field.name for field in fields(Spec))


class Request(NamedTuple):
    """The body of a line: what to generate, and how its output shows the images."""

    spec: Spec
    response_format: str


# Reads a body as the call of the batch's endpoint does. Raises `DomainError`.
ReadBody = Callable[[Any], Request]


class Fault(NamedTuple):
    """A fault of a file, as OpenAI's `BatchError`; `line` is None for one of the whole file."""

    code: str
    message: str
    param: str | None
    line: int | None

    @classmethod
    def of(cls, error: DomainError, *, line: int | None = None) -> "Fault":
        return cls(error.code, str(error), error.param, line)


def lines_read(
    batch: Batch, content: IO[bytes], *, read_body: ReadBody, config: Config, now: datetime
) -> tuple[list[Line], list[Fault]]:
    """Return the lines of a file, not yet written, and the first fault of each line that has one.

    A line is checked as the call of its endpoint would check it now, but for its content policy and for limits, which
    are those of the time when it becomes a job.
    """
    lines: list[Line] = []
    faults: list[Fault] = []
    first_with: dict[str, int] = {}
    pools: dict[str, Pool] = {}  # by what decides the pool of a request
    for number, text in lines_of(content, bytes_max=LINE_BYTES_MAX):
        if len(first_with) + len(faults) >= LINES_MAX:
            return [], [*faults, Fault.of(LinesTooMany(f"the file has more than {LINES_MAX} lines"))]
        try:
            custom_id, body = _parsed(text, batch.endpoint)
            if before := first_with.get(custom_id):
                message = f"the custom_id {custom_id!r} is that of line {before} too"
                raise CustomIdRepeated(message, param="custom_id")
            first_with[custom_id] = number
            lines.append(_line(batch, number, custom_id, read_body(body), pools, config, now))
        except DomainError as error:
            faults.append(Fault.of(error, line=number))
        if len(faults) >= FAULTS_MAX:
            return [], [*faults, Fault.of(LinesTooMany(f"only the first {FAULTS_MAX} faults are shown"))]
    if not lines and not faults:
        faults.append(Fault.of(LinesMissing()))
    return lines, faults


def request_json(spec: Spec) -> dict[str, Any]:
    """Return a request as a line stores it."""
    # Not `asdict` of all of it, which copies every value and takes a sixth of the time of reading a file.
    return {
        **{name: getattr(spec, name) for name in _SPEC_FIELDS},
        "adapters": [asdict(adapter) for adapter in spec.adapters],
    }


def request_of(stored: dict[str, Any]) -> Spec:
    """Return the request that a line stores."""
    return Spec(**{**stored, "adapters": tuple(RequestedAdapter(**adapter) for adapter in stored["adapters"])})


def _parsed(text: bytes, endpoint: str) -> tuple[str, Any]:
    """Return a line's custom_id and its body. Raises `LineInvalid`."""
    if len(text) > LINE_BYTES_MAX:
        raise LineTooLong(f"the line has more than {LINE_BYTES_MAX} bytes")
    try:
        found = json.loads(json_text(text), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise LineNotJson(f"the line is not JSON: {error}"[:300]) from error
    if not isinstance(found, dict):
        raise LineNotJson
    if unknown := sorted(name for name in found.keys() - _FIELDS if found[name] is not None):
        name = unknown[0][:100]
        raise LineFieldsInvalid(f"{name!r} is not known in a line: put the fields of the call into body", param=name)
    if missing := sorted(_FIELDS - found.keys()):
        raise LineFieldsInvalid(f"{missing[0]} is required: send it", param=missing[0])
    custom_id = found["custom_id"]
    if not isinstance(custom_id, str) or not custom_id or not is_line(custom_id, chars_max=512):
        raise CustomIdInvalid(param="custom_id")
    if found["method"] != "POST":
        raise MethodInvalid(param="method")
    if found["url"] != endpoint:
        raise UrlMismatched(f"the url must be the batch's endpoint, {endpoint!r}", param="url")
    return custom_id, found["body"]


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _line(
    batch: Batch,
    number: int,
    custom_id: str,
    request: Request,
    pools: dict[str, Pool],
    config: Config,
    now: datetime,
) -> Line:
    """Return a line whose request could be admitted as it is. Raises `DomainError`.

    Requests that differ only in what a plan does not depend on are planned once for all lines: a plan takes half of the
    time of reading a line.
    """
    line_id, spec = uuid4(), request.spec
    prompt_validate(prompt_clean(spec.prompt), chars_max=config.prompt_chars_max)
    planned = repr(replace(spec, prompt="", seed=None, metadata={}))
    if (pool := pools.get(planned)) is None:
        pool = pools[planned] = pool_of(spec, batch=batch, line_id=line_id, config=config, now=now)
    return Line(
        id=line_id,
        batch=batch,
        number=number,
        custom_id=custom_id,
        request=request_json(request.spec),
        response_format=request.response_format,
        pool=pool,
    )


def pool_of(spec: Spec, *, batch: Batch, line_id: UUID, config: Config, now: datetime) -> Pool:
    """Return the pool that would serve a line's request now. Raises `DomainError` if it could not be admitted."""
    checked: dict[str, Any] = {"api_key": batch.api_key, "config": config, "job_id": line_id}
    checked |= {"batch_until": batch.expires_at, "now": now}
    # Nothing is looked up in the result cache now.
    spec = replace(spec, cache=False)
    try:
        return job_plan(spec=spec, **checked).pool
    except PromptBlocked:
        # A blocked prompt is that line's failure, as in the call itself, and no fault of the file.
        return job_plan(spec=replace(spec, prompt="-"), **checked).pool
