"""Serves objects of the folder store to the holder of a signed URL. A bucket serves its own."""

import asyncio
import mimetypes
import os
import re
import time
from collections.abc import AsyncIterator
from typing import IO

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils.cache import get_conditional_response
from django.utils.http import http_date, parse_http_date_safe

from core.errors import DomainError, NotFound
from core.threads import in_thread
from easel.api.access import ACCESS, link_access
from easel.api.errors import BodyTooLarge, MethodNotAllowed, handle
from easel.jobs.stored_images import attempt_is_live, upload_bytes_max
from easel.storage import FolderStore, ObjectTooLarge, store

CHUNK_BYTES = 2**20
CACHED_SECONDS = 3600
ALLOW = "GET, HEAD, PUT, OPTIONS"
_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*", re.IGNORECASE)


class LinkRefused(DomainError, code="link_refused", http_status=403):
    """This URL of a stored object is wrong, or it is valid no longer.

    Read the job again: its answer has new URLs. A worker lets go of an attempt whose link is refused.
    """


class ObjectExists(DomainError, code="object_exists", http_status=412):
    """Another object lies here, and no object is replaced.

    Take the object that is there for the one that was to be stored.
    """


LINK_ERRORS: tuple[type[DomainError], ...] = (LinkRefused, ObjectExists)


async def stored_object(request: HttpRequest, key: str) -> HttpResponseBase:
    """GET and PUT of one key: 404 for a missing object, 412 for a PUT onto another.

    The answer is 403 without a valid signature, for a worker's link whose attempt has ended, and for an image's whose
    API key has lost its access; 413 for a PUT of more than the attempt's image may have.
    """
    if (refusal := stored_object_refusal(request, key)) is not None:
        return refusal
    folder = store()
    assert isinstance(folder, FolderStore)
    is_upload = request.method == "PUT"
    try:
        await (in_thread(_upload, folder, key, request) if is_upload else _confirm(request))
    except (OperationalError, InterfaceError, DomainError) as error:
        return _refused(error)
    if is_upload:
        return HttpResponse(status=204)
    try:
        file = await asyncio.to_thread(folder.path(key).open, "rb")
    except (FileNotFoundError, IsADirectoryError, ValueError):
        return _refused(NotFound("there is no such object"))
    left_seconds = max(0, int(request.GET["expires"]) - int(time.time()))
    return _answer(request, file, key, cached_seconds=min(CACHED_SECONDS, left_seconds))


def stored_object_refusal(request: HttpRequest, key: str) -> HttpResponse | None:
    """Return the answer to a request that its head alone refuses; None if it doesn't."""
    folder = store()
    if not isinstance(folder, FolderStore):
        return _refused(NotFound("objects of this platform are not stored here"))
    if request.method not in ("GET", "HEAD", "PUT"):
        refusal = _refused(MethodNotAllowed(f"an object has no method {request.method}"))
        refusal["Allow"] = ALLOW
        return refusal
    method = "PUT" if request.method == "PUT" else "GET"
    if not folder.allows(method, key, request.GET.dict(), now=time.time()):
        return _refused(LinkRefused("this link is wrong or has expired"))
    if method == "PUT" and request.headers.get("Content-Type", "") != request.GET["type"]:
        return _refused(LinkRefused("another Content-Type was signed"))
    return None


stored_object.csrf_exempt = True  # type: ignore[attr-defined]
stored_object.refusal = stored_object_refusal  # type: ignore[attr-defined]
stored_object.allow = ALLOW  # type: ignore[attr-defined]


def _refused(error: Exception) -> HttpResponse:
    answer = handle(error)
    assert answer is not None
    return answer


_ENDED = "the attempt of this link has ended"


async def _confirm(request: HttpRequest) -> None:
    """Raise `LinkRefused` for a worker's link to an adapter after its attempt's end, or an image's without its key.

    An image that is allowed is watched while it is sent.
    """
    attempt, key_id = request.GET.get("attempt"), request.GET.get("key")
    if attempt is not None and not await in_thread(attempt_is_live, attempt):
        raise LinkRefused(_ENDED)
    if key_id is not None:
        try:
            access = await in_thread(link_access, key_id, address=request.META.get("REMOTE_ADDR", ""))
        except DomainError as error:
            raise LinkRefused("the key of this link has lost its access") from error
        request.scope[ACCESS] = access  # type: ignore[attr-defined]  # of ASGI


def _upload(folder: FolderStore, key: str, request: HttpRequest) -> None:
    """Store what a live attempt's worker sends. Raises `LinkRefused`, `ObjectExists` and `BodyTooLarge`."""
    bytes_max = upload_bytes_max(key)
    if bytes_max is None:
        raise LinkRefused(_ENDED)
    try:
        folder.put_new(key, request, bytes_max=bytes_max)
    except FileExistsError as error:
        raise ObjectExists from error
    except ObjectTooLarge as error:
        raise BodyTooLarge(f"at most {bytes_max} bytes") from error


def _answer(request: HttpRequest, file: IO[bytes], key: str, *, cached_seconds: int) -> HttpResponseBase:
    """Return the file, the range of it that the request asks for, or 304 for a client that has it."""
    facts = os.fstat(file.fileno())
    # Objects are replaced as whole files, so that size and time change with the content; a hash would have to be read.
    etag, changed_at = f'"{facts.st_mtime_ns:x}-{facts.st_size:x}"', int(facts.st_mtime)
    headers = {
        "ETag": etag,
        "Last-Modified": http_date(changed_at),
        "Cache-Control": f"private, max-age={cached_seconds}, immutable",
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
    }
    answer = get_conditional_response(request, etag, changed_at, HttpResponse(headers=headers))
    if answer is not None and answer.status_code != 200:
        file.close()
        return answer
    span, status = range(facts.st_size), 200
    asked = request.headers.get("Range", "")
    if asked and request.method == "GET" and _is_unchanged(request.headers.get("If-Range", ""), etag, changed_at):
        part = range_of(asked, size=facts.st_size)
        if part is not None:
            span, status = part, 206 if part else 416
    if status == 206:
        headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{facts.st_size}"
    if status == 416:
        headers["Content-Range"] = f"bytes */{facts.st_size}"
    headers["Content-Length"] = str(len(span))
    headers["Content-Type"] = mimetypes.guess_type(key)[0] or "application/octet-stream"
    if request.method == "HEAD" or status == 416:
        file.close()
        return HttpResponse(status=status, headers=headers)
    return StreamingHttpResponse(_chunks(file, span), status=status, headers=headers)


def range_of(header: str, *, size: int) -> range | None:
    """Return the bytes that a `Range` header asks for, an empty range if there are none (416), or None for all (200).

    Several ranges and what is no range are answered with all, as RFC 9110 permits.
    """
    found = _RANGE.fullmatch(header)
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        return range(max(0, size - int(found[2])), size) if size else None
    first, last = int(found[1]), int(found[2]) if found[2] else size - 1
    if found[2] and last < first:
        return None
    return range(min(first, size), min(last + 1, size))


def _is_unchanged(if_range: str, etag: str, changed_at: int) -> bool:
    """Return true if the part that the client has, of which `If-Range` names the ETag or the time, is of this file."""
    return not if_range or if_range == etag or parse_http_date_safe(if_range) == changed_at


async def _chunks(file: IO[bytes], span: range) -> AsyncIterator[bytes]:
    with file:
        await asyncio.to_thread(file.seek, span.start)
        left = len(span)
        while left and (chunk := await asyncio.to_thread(file.read, min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk
