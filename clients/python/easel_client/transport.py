"""Calls the API: authentication, retries, files and events."""

import json
import os
import random
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from io import IOBase
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import quote

import httpx

from easel_client.errors import EaselError, NotEasel, Unreachable, refusal_of

# A path is a file to read.
FileContent = bytes | str | os.PathLike[str] | IO[bytes]
Query = Mapping[str, object]

_RETRY_SECONDS_MIN, _RETRY_SECONDS_MAX = 0.5, 30.0
# A read lasts longer than the keepalives of a waiting answer, which come every 15 s.
TIMEOUT = httpx.Timeout(60.0, connect=10.0)


@dataclass(frozen=True, slots=True)
class Event:
    """A server-sent event: its name, its id and its data, which is an object."""

    name: str
    id: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """Calls the API at `url` with one key. Every call raises an `EaselError`.

    A call is repeated up to `retries` times where that can help and can't do anything twice: it was refused for now,
    or it only reads, sets or deletes, or it has an idempotency key.
    """

    url: str
    key: str
    http: httpx.Client
    retries: int
    sleep: Callable[[float], None] = time.sleep
    observe: Callable[[httpx.Response], None] | None = None

    def json(self, method: str, path: str, **options: Any) -> Any:
        """Return the JSON of an answer; None for an answer without a body. The options are those of `send`."""
        response = self.send(method, path, **options)
        if response.status_code == 204:
            return None
        try:
            return response.json()
        except ValueError as error:
            raise NotEasel(f"{response.request.url} answered with HTTP {response.status_code}, no JSON") from error

    def pages(self, path: str, query: Query) -> Iterator[Any]:
        """Yield the things of a list, page by page."""
        after = query.get("after")
        while True:
            page = self.json("GET", path, query={**query, "after": after})
            yield from page["data"]
            if not page.get("has_more") or not page["data"]:
                return
            after = page.get("last_id") or page["data"][-1]["id"]

    def download(self, method: str, path: str, **options: Any) -> "Download":
        """Return a file whose content is read on demand."""
        return Download(self.send(method, path, stream=True, **options))

    def events(self, method: str, path: str, **options: Any) -> Iterator[Event]:
        """Yield server-sent events until the server ends them."""
        response = self.send(method, path, stream=True, **options)
        try:
            yield from _events(response.iter_lines())
        except httpx.HTTPError as error:
            raise Unreachable(f"the events of {response.request.url} broke off: {error!r}") from error
        finally:
            response.close()

    def fetch(self, url: str) -> bytes:
        """Return what a signed URL leads to, for example an image. The key isn't sent."""
        return self._tried(
            lambda: self._once(self.http.build_request("GET", url), stream=False), repeatable=True
        ).content

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Mapping[str, object] | None = None,
        form: Mapping[str, object] | None = None,
        headers: Mapping[str, str | None] | None = None,
        stream: bool = False,
    ) -> httpx.Response:
        """Send a request and return its answer, which has a status below 400. Fields that are None are left out.

        `stream`: the answer's body is not read yet, and the caller closes it.
        """
        given = {name: value for name, value in (headers or {}).items() if value is not None}
        options: dict[str, Any] = {"params": _query(query or {})}
        if body is not None:
            options["json"] = _given(body)
        repeatable = method in ("GET", "PUT", "DELETE") or "Idempotency-Key" in given

        def once() -> httpx.Response:
            parts = _parts(form) if form is not None else {}
            request = self.http.build_request(
                method, self.url + path, headers={"Authorization": f"Bearer {self.key}", **given}, **options, **parts
            )
            return self._once(request, stream=stream, repeatable=repeatable)

        return self._tried(once, repeatable=repeatable)

    def _once(self, request: httpx.Request, *, stream: bool, repeatable: bool = True) -> httpx.Response:
        try:
            response = self.http.send(request, stream=stream)
            if self.observe:
                self.observe(response)
            if response.is_success:
                return response
            response.read()
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(f"{request.url.copy_with(query=None)} does not answer: {reason}") from error
        response.close()
        raise refusal_of(response, repeatable=repeatable)

    def _tried(self, once: Callable[[], httpx.Response], *, repeatable: bool) -> httpx.Response:
        for attempt in range(self.retries + 1):
            try:
                return once()
            except EaselError as error:
                unsent = isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout)
                may_retry = error.retryable and (repeatable or unsent or not isinstance(error, Unreachable))
                seconds = retry_seconds(error, attempt)
                if attempt == self.retries or not may_retry or seconds > _RETRY_SECONDS_MAX:
                    raise
            self.sleep(seconds)
        raise AssertionError("unreachable")


def retry_seconds(error: EaselError, attempt: int) -> float:
    """Return the time to wait before another attempt: the server's, or a random one that doubles each time."""
    asked: float | None = getattr(error, "retry_after_seconds", None)
    if asked is not None:
        return asked
    longest = min(_RETRY_SECONDS_MAX, _RETRY_SECONDS_MIN * 2.0 ** min(attempt, 10))
    return random.uniform(longest / 2, longest)  # noqa: S311 - so that clients don't return all at once


class Download:
    """A file that the API sends. Read it, save it or iterate over it once; leaving a `with` block closes it."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.content_type = response.headers.get("Content-Type", "")

    @property
    def name(self) -> str:
        """The file's name as the server gives it; empty if it gives none."""
        _, _, name = self._response.headers.get("Content-Disposition", "").partition("filename=")
        return Path(name.split(";")[0].strip().strip('"')).name

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._response.iter_bytes()
        except httpx.HTTPError as error:
            raise Unreachable(f"the file {self.name} broke off: {error!r}") from error
        finally:
            self.close()

    def read(self) -> bytes:
        return b"".join(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the file to `path`, whole or not at all. A folder gets it under the name that the server gives."""
        target = Path(path)
        if target.is_dir():
            target = target / (self.name or "download")
        write_whole(target, self)
        return target

    def close(self) -> None:
        self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


def write_whole(path: Path, blocks: Iterator[bytes] | Download) -> None:
    """Write a file under another name and then rename it: a reader never sees a part of it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "wb") as file:
            for block in blocks:
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise


def new_key(given: str | None = None) -> str:
    """Return the idempotency key of a call: a random one if the caller gives none, so that it may be repeated."""
    return uuid.uuid4().hex if given is None else given


def segment(value: object) -> str:
    """Return a part of a path, in which a slash is no separator."""
    return quote(str(value), safe="")


def _given(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


def _query(fields: Mapping[str, object]) -> dict[str, str]:
    return {name: _text(value) for name, value in _given(fields).items()}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    return str(value)


def _parts(form: Mapping[str, object]) -> dict[str, Any]:
    """Return a multipart form as httpx takes it. Files are opened anew for every attempt."""
    data: dict[str, str] = {}
    files: dict[str, Any] = {}
    for name, value in _given(form).items():
        if isinstance(value, os.PathLike):
            files[name] = (Path(value).name, Path(value).read_bytes())
        elif isinstance(value, bytes | bytearray):
            files[name] = (name, bytes(value))
        elif isinstance(value, IOBase):
            if value.seekable():
                value.seek(0)
            files[name] = (Path(str(getattr(value, "name", name))).name, value)
        elif isinstance(value, dict | list):
            data[name] = json.dumps(value)
        else:
            data[name] = _text(value)
    return {"data": data, "files": files}


def _events(lines: Iterator[str]) -> Iterator[Event]:
    name, event_id, data = "", "", list[str]()
    for line in lines:
        if not line:
            if data:
                yield Event(name=name or "message", id=event_id, data=_data("\n".join(data)))
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "id":
            event_id = value
        elif field == "data":
            data.append(value)


def _data(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {"text": text}  # for example [DONE]
    return found if isinstance(found, dict) else {"value": found}
