"""The output and error files of batches, written while they are read.

A file that was written when its batch ended would lead to nothing soon: the URL of an image is valid for minutes. So
the lines refer to images by URLs that are signed as the file is read, and show the images themselves only where the
request said `b64_json`: a thousand of those are gigabytes.
"""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from rest_framework.utils.encoders import JSONEncoder

from core.errors import DomainError
from core.threads import in_thread
from easel.api.access import Access, BrokenOff
from easel.api.errors import error_body
from easel.api.images import images_json
from easel.batches.errors import BatchCancelled, BatchExpired
from easel.batches.models import File, Line
from easel.batches.queries import ended_lines
from easel.jobs.models import Job
from easel.jobs.outputs import ImageLinks
from easel.jobs.queries import jobs_shown
from easel.storage import store

_LINES = 25  # per query
_BLOCK_BYTES = 2**20
_UNSERVED = {BatchExpired.code, BatchCancelled.code}  # there was no answer, not even a refusal


async def blocks_streamed(blocks: Iterator[bytes], *, access: Access) -> AsyncIterator[bytes]:
    """Yield blocks, each read on a thread, which is free again while the client takes the block.

    Raises `BrokenOff` once the caller has lost its `access`: what was sent has no place for an error.
    """

    def read_confirmed() -> bytes:
        block = next(blocks, b"")
        try:
            access.confirm()
        except DomainError as error:
            raise BrokenOff(error.code) from error
        return block

    while block := await in_thread(read_confirmed):
        yield block


def stored_blocks(file: File) -> Iterator[bytes]:
    """Yield the content of an input file."""
    with store().open(file.storage_key) as content:
        while block := content.read(_BLOCK_BYTES):
            yield block


def results_of(file: File, links: ImageLinks) -> Iterator[bytes]:
    """Yield the lines of an output or error file, about a block at a time. No query is left open between two blocks.

    A line may have ten images in base64, so that no two such lines are in memory at once.
    """
    lines, number = ended_lines(file), 0
    while found := list(lines.filter(number__gt=number)[:_LINES]):
        jobs = jobs_shown([line.job_id for line in found if line.job_id is not None])
        block = b""
        for line in found:
            block += json.dumps(_result(line, jobs.get(line.id), links), cls=JSONEncoder).encode() + b"\n"
            if len(block) >= _BLOCK_BYTES:
                yield block
                block = b""
        if block:
            yield block
        number = found[-1].number


def _result(line: Line, job: Job | None, links: ImageLinks) -> dict[str, Any]:
    """Return OpenAI's output object of a line: an answer of the endpoint, or the reason why there is none."""
    named = {"id": f"batch_req_{line.id.hex}", "custom_id": line.custom_id}
    if line.error is not None and line.error["code"] in _UNSERVED:
        error = {name: line.error[name] for name in ("code", "message")}
        return {**named, "response": None, "error": error}
    if line.error is not None:
        status, body = line.error["status"], {"error": {n: line.error[n] for n in ("message", "type", "param", "code")}}
    else:
        assert job is not None  # by a constraint: a line without a job has an error
        status, body = _answer(job, links, line.response_format)
    return {**named, "response": {"status_code": status, "request_id": line.id.hex, "body": body}, "error": None}


def _answer(job: Job, links: ImageLinks, response_format: str) -> tuple[int, Any]:
    try:
        return 200, images_json(job, links, response_format=response_format)
    except DomainError as error:  # the job failed, or its images were deleted meanwhile
        return error.http_status, error_body(error)
