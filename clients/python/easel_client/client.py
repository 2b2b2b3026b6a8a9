"""The client: the generated calls, and what is handier than a single call."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import httpx

from easel_client import api, types
from easel_client.errors import EaselError, JobFailed
from easel_client.transport import TIMEOUT, Transport

Job = types.Job
FINAL = frozenset({"succeeded", "failed", "canceled", "expired"})
_POLL_SECONDS_MIN, _POLL_SECONDS_MAX = 0.2, 2.0


class Jobs(api.Jobs):
    """Jobs, and waiting for them."""

    def follow(self, job: Job | str) -> Iterator[Job]:
        """Yield the job as it progresses, until it has ended, however it ends."""
        shown = self.get(job) if isinstance(job, str) else job
        pause_seconds = _POLL_SECONDS_MIN
        while shown["status"] not in FINAL:
            yield shown
            self._transport.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 1.2, _POLL_SECONDS_MAX)
            shown = self.get(shown["id"])
        yield shown

    def wait(self, job: Job | str) -> Job:
        """Return the job when it has succeeded. Raises `JobFailed` if it ends without images."""
        for shown in self.follow(job):
            if shown["status"] in FINAL:
                job = shown
        assert not isinstance(job, str)
        if job["status"] != "succeeded":
            raise JobFailed(job)
        return job


class Easel(api.Api):
    """Calls the API of the Easel at `url` with a tenant's key, by default those of EASEL_URL and EASEL_API_KEY.

    `retries` is how often a call is repeated where that helps. A client may be used by many threads, and as a context
    manager. Raises `EaselError` if no URL or no key is given.
    """

    jobs: Jobs

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        retries: int = 4,
        http: httpx.Client | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        url = url or os.environ.get("EASEL_URL")
        api_key = api_key or os.environ.get("EASEL_API_KEY")
        if not url or not api_key:
            missing = "the server's URL (url, or EASEL_URL)" if not url else "an API key (api_key, or EASEL_API_KEY)"
            raise EaselError(f"Easel's client needs {missing}", code="not_configured")
        self._http = http or httpx.Client(timeout=TIMEOUT, follow_redirects=False)
        self._given_http = http is not None
        url = url.rstrip("/").removesuffix("/v1")
        self._use(Transport(url=url, key=api_key, http=self._http, retries=retries, sleep=sleep))

    def _use(self, transport: Transport) -> None:
        super().__init__(transport)
        self.jobs = Jobs(transport)

    @property
    def url(self) -> str:
        """The server's URL without `/v1`."""
        return self._transport.url

    @property
    def api_key(self) -> str:
        return self._transport.key

    @property
    def transport(self) -> Transport:
        """Sends a request that has no method here: `client.transport.json("GET", "/v1/models")`."""
        return self._transport

    def without_retries(self) -> "Easel":
        """Return a client that shares this one's connections and repeats nothing."""
        return self._twin(retries=0)

    def observed(self, observe: Callable[[httpx.Response], None]) -> "Easel":
        """Return a client that shares this one's connections and calls `observe` with every answer."""
        return self._twin(observe=observe)

    def _twin(self, **changes: Any) -> "Easel":
        twin = object.__new__(Easel)
        twin._http, twin._given_http = self._http, True
        twin._use(replace(self._transport, **changes))
        return twin

    def fetch(self, url: str) -> bytes:
        """Return an image by the signed URL that a finished job gives."""
        return self._transport.fetch(url)

    def close(self) -> None:
        if not self._given_http:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()
