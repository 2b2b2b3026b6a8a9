"""Compresses answers for clients that ask by `Accept-Encoding: gzip`, except for pages of the portal.

BREACH, which guesses a secret from the size of compressed answers, needs a browser that sends the victim's cookie for
the attacker. The API has no cookies; the portal has, so that its pages are left as they are.
"""

import asyncio
import contextlib
import re
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.cache import patch_vary_headers
from django.utils.decorators import async_only_middleware

BYTES_MIN = 1024  # below it a packet is sent anyway
# Of a list of 100 jobs (99 kB) level 1 leaves 24 kB after 0.5 ms, level 6 leaves 22 kB after 1.2 ms.
LEVEL = 1
# An image in base64 shrinks to 0.77, for 55 ms of CPU per 2 MB: 20 times the CPU of its admission, to save no more than
# `response_format: url` does for nothing. A sample tells, of which the cost is 0.1 ms.
SAMPLE_BYTES = 4096
RATIO_MAX = 0.7
INLINE_BYTES_MAX = 2**16  # more is compressed on a thread, so that the event loop never waits for a millisecond

_WHOLE = ("application/json", "application/jsonl", "text/")
_STREAMED = ("application/jsonl", "text/csv")  # no events and no waits, whose bytes must leave at once


@async_only_middleware
def Gzip(  # noqa: N802 - named in settings like a class, as middleware is
    get_response: Callable[[HttpRequest], Awaitable[HttpResponseBase]],
) -> Callable[[HttpRequest], Awaitable[HttpResponseBase]]:
    """Compress what shrinks: JSON, documents and exports."""

    async def middleware(request: HttpRequest) -> HttpResponseBase:
        response = await get_response(request)
        kinds = _STREAMED if response.streaming else _WHOLE
        if (
            response.status_code != 200
            or response.has_header("Content-Encoding")
            or not response.get("Content-Type", "").startswith(kinds)
            or request.path.startswith(settings.PORTAL_PATH)
        ):
            return response
        patch_vary_headers(response, ("Accept-Encoding",))
        if not accepts_gzip(request.headers.get("Accept-Encoding", "")):
            return response
        if isinstance(response, StreamingHttpResponse):
            if request.method == "HEAD":  # for which no stream is begun
                return response
            await _compress_stream(response)
        elif isinstance(response, HttpResponse):
            await _compress(response)
        return response

    return middleware


def accepts_gzip(header: str) -> bool:
    """Return true if `Accept-Encoding` names gzip, or `*`, with a quality above 0."""
    qualities = {}
    for part in header.lower().split(","):
        name, _, quality = part.partition(";")
        qualities[name.strip()] = quality.replace(" ", "")
    quality = qualities.get("gzip", qualities.get("*", "q=0"))
    return re.fullmatch(r"q=0(\.0*)?", quality) is None


def shrinks(content: bytes) -> bool:
    """Return true if the beginning of `content` says that compressing it is worth the CPU."""
    sample = content[:SAMPLE_BYTES]
    return len(zlib.compress(sample, LEVEL)) <= RATIO_MAX * len(sample)


async def _compress(response: HttpResponse) -> None:
    content = response.content
    if len(content) < BYTES_MIN or not shrinks(content):
        return
    if len(content) <= INLINE_BYTES_MAX:
        response.content = zlib.compress(content, LEVEL, wbits=31)
    else:
        response.content = await asyncio.to_thread(zlib.compress, content, LEVEL, wbits=31)
    _mark(response)


async def _compress_stream(response: StreamingHttpResponse) -> None:
    blocks: Any = aiter(response.streaming_content)  # type: ignore[arg-type]  # every stream here is asynchronous
    first = await anext(blocks, b"")
    if len(first) >= BYTES_MIN and not shrinks(first):
        response.streaming_content = _joined(first, blocks)
        return
    response.streaming_content = _compressed(_joined(first, blocks))
    _mark(response)


async def _joined(first: bytes, blocks: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with contextlib.aclosing(blocks):
        yield first
        async for block in blocks:
            yield block


async def _compressed(blocks: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    packer = zlib.compressobj(LEVEL, wbits=31)
    async with contextlib.aclosing(blocks):
        async for block in blocks:
            if packed := await asyncio.to_thread(packer.compress, block):
                yield packed
    yield packer.flush()


def _mark(response: HttpResponseBase) -> None:
    response["Content-Encoding"] = "gzip"
    if response.has_header("ETag") and not response["ETag"].startswith("W/"):
        response["ETag"] = f"W/{response['ETag']}"  # of the same content in other bytes
    if response.has_header("Content-Length"):
        del response["Content-Length"]
