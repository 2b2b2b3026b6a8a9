"""Holds every answer that the tests get to the OpenAPI document: status, media type, headers, error code and fields."""

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import httpx
from jsonschema import Draft202012Validator

from easel.api.document import document
from easel.api.urls import urlpatterns

# Headers of HTTP itself and of proxies.
STANDARD = {
    "allow",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "etag",
    "last-modified",
    "connection",
    "vary",
    "strict-transport-security",
    "x-accel-buffering",
    "x-content-type-options",
}


def check(answer: httpx.Response) -> None:
    """Fail if the document doesn't describe this answer. Fields that it doesn't name fail too."""
    request = answer.request
    # Azure's paths are aliases, as the document's introduction says.
    path = re.sub("^/openai(/deployments/.+(?=/images/)|/v1)?(?=/)", "/v1", request.url.path)
    operation = operation_of(request.method, path)
    if operation is None or answer.status_code == 405:
        return
    if answer.status_code == 404 and answer.json()["error"]["code"] == "not_found":
        return  # no route has this path, such as one with an id that is none
    what = f"{request.method} {request.url.path} {answer.status_code}"
    described = operation["responses"].get(str(answer.status_code))
    assert described, f"{what} is not described: {answer.text[:500]}"
    ours = {name for name in answer.headers if name not in STANDARD and not name.startswith("access-control-")}
    unknown = ours - {name.lower() for name in described["headers"]}
    assert not unknown, f"{what}: the headers {unknown} are not described"
    content = described.get("content", {})
    if not content:
        assert not answer.content, what
        return
    media_type = answer.headers["content-type"].partition(";")[0]
    assert media_type in content, f"{what}: {media_type} is not described"
    if media_type == "text/event-stream":
        for event, data in _events(answer.text):
            assert event in content[media_type]["x-events"], f"{what}: the event {event} is not described"
            validator(json.dumps(content[media_type]["x-events"][event])).validate(data)
    if media_type == "application/json":
        found = answer.json()
        validator(json.dumps(content[media_type]["schema"])).validate(found)
        if codes := described.get("x-error-codes"):
            code = found["error"]["code"]
            assert code in codes, f"{what}: the code {code} is not described"


def _events(text: str) -> Iterator[tuple[str, Any]]:
    """Yield the name and the data of each event of a stream; blocks of comments keep it alive."""
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
        if "event" in fields:
            yield fields["event"], json.loads(fields["data"])


@cache
def validator(schema: str) -> Draft202012Validator:
    """Return a validator of a schema of the document, which takes no field that isn't declared."""
    return Draft202012Validator(
        {**json.loads(schema), "components": _closed_components()},
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    )


@cache
def whole() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(document(urlpatterns, server_url="http://easel.test")))
    return found


@cache
def _closed_components() -> Any:
    return _closed(whole()["components"])


def _closed(node: Any) -> Any:
    if isinstance(node, list):
        return [_closed(one) for one in node]
    if not isinstance(node, dict):
        return node
    closed = {name: _closed(value) for name, value in node.items()}
    return {**closed, "additionalProperties": False} if "properties" in node and "type" in node else closed


def operation_of(method: str, path: str) -> dict[str, Any] | None:
    for pattern, operations in _paths():
        if pattern.fullmatch(path):
            found: dict[str, Any] | None = operations.get(method.lower())
            return found
    return None


@cache
def _paths() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    paths = sorted(whole()["paths"].items(), key=lambda path: path[0].count("{"))  # a literal path comes first
    return [(re.compile(re.sub(r"{\w+}", "[^/]+", path)), operations) for path, operations in paths]
