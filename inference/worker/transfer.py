"""Uploads and downloads by signed URL: retried while the storage is unavailable, but not after a refusal."""

import hashlib
import random
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import structlog

from inference.errors import TransferError

_RETRY_SECONDS_MAX = 60.0
_DELAY_SECONDS_FIRST, _DELAY_SECONDS_MAX = 0.2, 5.0
_BYTES_PER_SECOND_MIN = 1024**2  # of a download: a slower one could hold its attempt for hours
_TEMPORARY_4XX = (408, 425, 429)

log = structlog.get_logger()


class _TemporaryError(Exception):
    """A failure that a retry may fix."""


def new_client() -> httpx.Client:
    """Make the HTTP client for transfers; threads may share it."""
    return httpx.Client(timeout=httpx.Timeout(30.0, connect=5.0))


def upload(client: httpx.Client, url: str, data: bytes, *, content_type: str) -> None:
    """PUT `data` unless the URL already has content (`If-None-Match`, RFC 9110).

    If a task is delivered to two workers, the first upload stays, because its hash has been reported. Raises
    `TransferError` at once if the storage refuses (4xx), else when the retries end.
    """

    def put() -> None:
        _check(client.put(url, content=data, headers={"Content-Type": content_type, "If-None-Match": "*"}))

    _retry("upload", put)


def download(client: httpx.Client, url: str, path: Path, *, size_bytes: int, sha256: str) -> None:
    """GET a body of this size and hash into `path`, or leave it absent. Raises `TransferError` as `upload` does."""
    partial = path.with_name(f"{path.name}.{random.randbytes(6).hex()}.part")  # noqa: S311

    def get() -> None:
        digest, received = hashlib.sha256(), 0
        slow_at = time.monotonic() + _RETRY_SECONDS_MAX + size_bytes / _BYTES_PER_SECOND_MIN
        with client.stream("GET", url) as response, partial.open("wb") as file:
            _check(response)
            for chunk in response.iter_bytes():
                received += len(chunk)
                if received > size_bytes:
                    break
                if time.monotonic() > slow_at:
                    raise TransferError(f"the storage sent {received} of {size_bytes} bytes, too slowly")
                digest.update(chunk)
                file.write(chunk)
        if received != size_bytes or digest.hexdigest() != sha256:
            raise _TemporaryError("the body has another size or hash than announced")

    try:
        _retry("download", get)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _check(response: httpx.Response) -> None:
    status = response.status_code
    if status >= 500 or status in _TEMPORARY_4XX:
        raise _TemporaryError(f"the storage answered {status}")
    if not response.is_success:
        raise TransferError(f"the storage refused with {status}", code="storage_refused")


def _retry(verb: str, work: Callable[[], None]) -> None:
    """Repeat `work` with growing, jittered pauses. Messages omit the URL, which is a capability."""
    deadline = time.monotonic() + _RETRY_SECONDS_MAX
    delay = _DELAY_SECONDS_FIRST
    while True:
        try:
            return work()
        except (httpx.TransportError, _TemporaryError) as error:
            reason = str(error) if isinstance(error, _TemporaryError) else type(error).__name__
        if time.monotonic() + delay > deadline:
            raise TransferError(f"{verb}: {reason}")
        log.warning("transfer_repeated", verb=verb, reason=reason, delay_seconds=round(delay, 2))
        time.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311
        delay = min(2 * delay, _DELAY_SECONDS_MAX)
