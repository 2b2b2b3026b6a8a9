"""Answers with files that are written while the client reads them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

from django.http import StreamingHttpResponse


def download(blocks: Iterator[bytes], *, name: str, content_type: str) -> StreamingHttpResponse:
    """A file of `blocks`. The first is made here, so that an early failure is an error and no broken file."""
    first = next(blocks, b"")
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Accel-Buffering": "no"}
    return StreamingHttpResponse(_sent(first, blocks), content_type=content_type, headers=headers)


async def _sent(first: bytes, blocks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the blocks from one thread, as the reader may be slow; close their source when the reader leaves."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="download")
    try:
        yield first
        while block := await asyncio.get_running_loop().run_in_executor(thread, next, blocks, b""):
            yield block
    finally:
        # It runs after the block that the thread may be at.
        thread.submit(blocks.close)  # type: ignore[attr-defined]  # of a generator
        thread.shutdown(wait=False)
