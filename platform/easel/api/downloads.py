"""Answers with files that are made while they are read."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

from django.http import StreamingHttpResponse


def download(blocks: Iterator[bytes], *, name: str, content_type: str) -> StreamingHttpResponse:
    """A file made of `blocks`; the first is made here, so that what fails at once is an error and no broken file."""
    first = next(blocks, b"")
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Accel-Buffering": "no"}
    return StreamingHttpResponse(_sent(first, blocks), content_type=content_type, headers=headers)


async def _sent(first: bytes, blocks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """On a thread of its own, as the reader may be slow; when the reader goes away, what makes the blocks is closed."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="download")
    try:
        yield first
        while block := await asyncio.get_running_loop().run_in_executor(thread, next, blocks, b""):
            yield block
    finally:
        # After the block that may be in the making.
        thread.submit(blocks.close)  # type: ignore[attr-defined]  # of a generator
        thread.shutdown(wait=False)
