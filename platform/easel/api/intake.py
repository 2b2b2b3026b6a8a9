"""Reads a request in order: its head, its key, then its body, within the path's limit and a time.

A client without a live key can make the server read no more than the server's own buffer of 64 KiB. A body that comes
along with its head, as small ones do, is taken as it is, and its key is looked at once, by the resource.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Callable
from typing import IO, Any

from django.conf import settings
from django.core.exceptions import RequestAborted
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import Resolver404, resolve

from core.threads import in_thread
from easel.api import errors
from easel.batches.files import FILE_BYTES_MAX

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]

SMALL_BYTES = 2**16  # the server has so much in its buffer before anybody asks for the body
SMALL_SECONDS = 0.1  # for the second packet of clients that send the head alone
SILENT_SECONDS = 30.0  # without one byte of the body
SECONDS, BYTES_PER_SECOND = 60.0, 2**16  # for all of the body: of 1 MB 75 s, of the largest adapter 2.3 hours
OUTPUT_BYTES_MAX = 64 * 2**20
EDIT_BYTES_MAX = 64 * 2**20  # OpenAI takes images of up to 50 MB
FORM_BYTES = 2**16  # of the form around an uploaded file
SIGN_IN_BYTES_MAX = 2**14


def body_bytes_max(method: str, path: str) -> int:
    """Return the limit of a request's body: of files on the paths that take them, else of JSON."""
    limits = {
        ("POST", "/v1/adapters"): settings.EASEL.adapter_bytes_max + FORM_BYTES,
        ("POST", "/v1/files"): FILE_BYTES_MAX + FORM_BYTES,
        ("POST", "/v1/images/edits"): EDIT_BYTES_MAX,
        ("POST", "/v1/images/variations"): EDIT_BYTES_MAX,
        ("POST", f"{settings.PORTAL_PATH}login/"): SIGN_IN_BYTES_MAX,
    }
    if method == "PUT" and path.startswith("/storage/"):
        return OUTPUT_BYTES_MAX
    return limits.get((method, path), settings.EASEL.body_bytes_max)


class Refused(Exception):
    """The request is answered by `answer`, before its body was read."""

    def __init__(self, answer: HttpResponseBase) -> None:
        super().__init__()
        self.answer = answer


async def body_taken(scope: Scope, receive: Receive, head: Callable[[], HttpRequest | None]) -> IO[bytes]:
    """Return the body of a request; `head` makes a request without it.

    Raises `Refused` and `DomainError` for a request that is refused before its body or in its middle, and
    `RequestAborted` if the client goes away.
    """
    given = dict(scope["headers"])
    limit = body_bytes_max(scope["method"], scope["path"])
    is_chunked = b"transfer-encoding" in given
    length = None if is_chunked else int(given.get(b"content-length", b"0"))
    body = _Body(receive, limit)
    try:
        if length is not None and length <= SMALL_BYTES and b"expect" not in given:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SMALL_SECONDS):
                    await body.read()
        if not body.is_whole:
            if (refusal := await in_thread(refusal_of, head())) is not None:
                raise Refused(refusal)
            if length is not None and length > limit:
                raise body.too_large()
            await _read_in_time(body, SECONDS + (limit if length is None else length) / BYTES_PER_SECOND)
    except BaseException:
        body.file.close()
        raise
    body.file.seek(0)
    return body.file


async def _read_in_time(body: "_Body", seconds: float) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    try:
        async with asyncio.timeout_at(deadline):
            while not body.is_whole:
                async with asyncio.timeout(SILENT_SECONDS):
                    await body.read_part()
    except TimeoutError as error:
        raise errors.RequestTimeout(
            f"the request's body did not come within {seconds:.0f} s, or nothing of it for {SILENT_SECONDS:.0f} s"
        ) from error


class _Body:
    """The body as far as it came, on disk where it is large."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._limit, self._size = receive, limit, 0
        self.is_whole = False
        self.file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=settings.FILE_UPLOAD_MAX_MEMORY_SIZE, mode="w+b")  # noqa: SIM115

    async def read(self) -> None:
        while not self.is_whole:
            await self.read_part()

    async def read_part(self) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise RequestAborted
        part = message.get("body", b"")
        self._size += len(part)
        if self._size > self._limit:
            raise self.too_large()
        self.file.write(part)
        self.is_whole = not message.get("more_body", False)

    def too_large(self) -> errors.BodyTooLarge:
        return errors.BodyTooLarge(f"the body is over the limit of {self._limit} bytes")


def refusal_of(request: HttpRequest | None) -> HttpResponseBase | None:
    """Return the answer to a request that its head alone refuses; None if its body may be read."""
    if request is None:
        return errors.bad_request(None, None)
    try:
        match = resolve(request.path_info)
    except Resolver404 as error:
        return errors.not_found(request, error)
    request.resolver_match = match
    resource: Any = getattr(match.func, "cls", None)
    if resource is not None:
        refusal: HttpResponse | None = resource().refusal(request)
        return refusal
    check = getattr(match.func, "refusal", None)
    found: HttpResponseBase | None = None if check is None else check(request, **match.kwargs)
    return found


def refused(error: Exception) -> HttpResponseBase:
    """Return the answer to a request whose body is not read to its end: its connection can't be used again."""
    answer = error.answer if isinstance(error, Refused) else errors.handle(error)
    assert answer is not None
    answer["Connection"] = "close"
    return answer
