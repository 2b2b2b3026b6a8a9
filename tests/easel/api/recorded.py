"""Makes examples of answers: the ids, times, links, names and secrets of a test become stable, clearly fake ones."""

import json
import re
from collections import defaultdict
from typing import Any

import httpx

from tests.easel.api.described import operation_of

TEXTS = ("text/csv", "application/jsonl", "text/event-stream")  # files that a reader of the document can read
ROWS_MAX = 2
LINES_MAX = 3
UNIX_SECONDS = 1772366400  # the same time as in texts
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
# In this order: a later pattern doesn't match what an earlier one wrote.
_FAKES = (
    (
        re.compile(r"(expires=)\d+((?:&(?:amp;)?(?:type|key)=[^&]*)*)(&signature=)\w+"),
        r"\g<1>1772370000\g<2>\g<3>example",
    ),
    (re.compile(r"whsec_[\w+/=-]+"), "whsec_example"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)"), "2026-03-01T12:00:00Z"),
    (re.compile(r"\d{4}-\d\d(?:-\d\d)?(?=/|$|\"|,| )"), "2026-03-01"),
    (re.compile(r"\b(?:bob|alice)-[0-9a-f]{12}"), "acme"),
    (re.compile(r"\bmodel-[0-9a-f]{12}"), "z-image-turbo"),
    (re.compile(r"\bpool-[0-9a-f]{12}"), "shared"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "0" * 64),
    (re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])"), "0" * 31 + "1"),
    (re.compile(r"(?<!\d)1[789]\d{8}(?!\d)"), str(UNIX_SECONDS)),
)
_UNIX_SECONDS = re.compile(r"created|\w+_at")


class Examples:
    """Collects the first answer of each operation, status and media type."""

    def __init__(self, *, key_id: str) -> None:
        self.answers: dict[str, dict[str, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
        self._key_id = key_id
        self._uuids: dict[str, str] = {}

    def add(self, answer: httpx.Response, *, about: str = "") -> None:
        """Add an answer; of a list, the rows in which the text `about` occurs, since others may be of other tests."""
        operation = operation_of(answer.request.method, answer.request.url.path)
        assert operation is not None
        media_type = answer.headers.get("content-type", "").partition(";")[0]
        if media_type == "application/json":
            content = answer.json()
            if isinstance(content.get("data"), list):
                content["data"] = [row for row in content["data"] if about in json.dumps(row)]
            value = self._value("", content)
        elif media_type in TEXTS:
            rows = answer.text.splitlines(keepends=True)
            value = self._text("".join(rows if media_type == "text/event-stream" else rows[:LINES_MAX]))
        else:
            return
        self.answers[operation["operationId"]][str(answer.status_code)].setdefault(media_type, value)

    def _value(self, name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {self._text(key): self._value(key, one) for key, one in value.items()}
        if isinstance(value, list):
            return [self._value(name, one) for one in value[:ROWS_MAX]]
        if isinstance(value, str):
            return "iVBORw0KGgo=" if name == "b64_json" else self._text(value)
        if isinstance(value, int) and not isinstance(value, bool) and _UNIX_SECONDS.fullmatch(name):
            return UNIX_SECONDS
        return value

    def _text(self, text: str) -> str:
        text = _UUID.sub(self._uuid, text).replace(self._key_id, "exampleKey01")
        for pattern, fake in _FAKES:
            text = pattern.sub(fake, text)
        return text

    def _uuid(self, found: re.Match[str]) -> str:
        number = len(self._uuids) + 1
        return self._uuids.setdefault(found[0], f"00000000-0000-4000-8000-{number:012}")


def shape(value: Any) -> Any:
    """Return the names of the fields of an answer, at every depth, without their values."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items()}
    if isinstance(value, list):
        return [shape(one) for one in value]
    if isinstance(value, str) and value.startswith(("event: ", "id: ")):
        return re.findall(r"^event: (.*)$", value, re.MULTILINE)
    return None


def written(answers: Any) -> str:
    """Return the file of examples, a line for each answer."""
    lines = []
    for name, statuses in sorted(answers.items()):
        rows = [f"    {json.dumps(status)}: {_line(kinds)}" for status, kinds in sorted(statuses.items())]
        lines.append(f"  {json.dumps(name)}: {{\n" + ",\n".join(rows) + "\n  }")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
