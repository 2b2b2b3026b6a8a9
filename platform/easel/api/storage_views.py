"""Serves objects of the folder store to the holder of a signed URL. A bucket serves its own."""

import asyncio
import mimetypes
import os
import time
from collections.abc import AsyncIterator
from typing import IO

from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from core.threads import in_thread
from easel.storage import FolderStore, store

CHUNK_BYTES = 2**20


async def stored_object(request: HttpRequest, key: str) -> HttpResponseBase:
    """GET and PUT of one key: 403 without a valid signature, 404 for a missing object, 412 for a PUT onto another."""
    folder = store()
    if not isinstance(folder, FolderStore):
        return HttpResponse(status=404)
    method = "GET" if request.method == "HEAD" else request.method or ""
    if not folder.allows(method, key, request.GET.dict(), now=time.time()):
        return HttpResponse("this link is wrong or has expired", status=403, content_type="text/plain")
    if method == "PUT":
        if request.headers.get("Content-Type", "") != request.GET["type"]:
            return HttpResponse("another Content-Type was signed", status=403, content_type="text/plain")
        try:
            await in_thread(folder.put_new, key, request)
        except FileExistsError:
            return HttpResponse("another object lies here", status=412, content_type="text/plain")
        return HttpResponse(status=204)
    try:
        file = await asyncio.to_thread(folder.path(key).open, "rb")
    except (FileNotFoundError, IsADirectoryError, ValueError):
        return HttpResponse(status=404)
    headers = {
        "Content-Type": mimetypes.guess_type(key)[0] or "application/octet-stream",
        "Content-Length": str(os.fstat(file.fileno()).st_size),
        "Cache-Control": "private, max-age=3600, immutable",
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingHttpResponse(_chunks(file), headers=headers)


async def _chunks(file: IO[bytes]) -> AsyncIterator[bytes]:
    with file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk


stored_object.csrf_exempt = True  # type: ignore[attr-defined]
