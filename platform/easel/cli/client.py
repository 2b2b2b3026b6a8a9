"""An HTTP client of the API, for commands that call it with a tenant's key."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from core.errors import DomainError

FINAL = {"succeeded", "failed", "canceled", "expired"}
_POLL_SECONDS = 0.2
_TIMEOUT_SECONDS = 30


class Refused(DomainError):
    """The API's refusal of a request."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Client:
    """Calls the API at `url` with one key. Every method raises `Refused` with the API's own code and message."""

    url: str
    api_key: str

    def submit(self, **fields: Any) -> dict[str, Any]:
        """Submit a job; the fields are those of `POST /v1/jobs`."""
        return self._call("POST", "/v1/jobs", json=fields)

    def follow(self, job: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the job as it progresses, until it has ended."""
        while job["status"] not in FINAL:
            yield job
            time.sleep(_POLL_SECONDS)
            job = self._call("GET", f"/v1/jobs/{job['id']}")
        yield job

    def image(self, url: str) -> bytes:
        """Fetch an image by the signed URL that a finished job gives."""
        try:
            answer = httpx.get(url, timeout=_TIMEOUT_SECONDS)
        except httpx.HTTPError as error:
            raise Refused("unreachable", f"the image can't be fetched: {error}") from error
        if answer.is_error:
            raise Refused("image_missing", f"the image can't be fetched: HTTP {answer.status_code}")
        return answer.content

    def upload_adapter(self, name: str, file: Path) -> dict[str, Any]:
        """Add a version to the adapter `name`; the same file again adds none."""
        return self._call("POST", "/v1/adapters", data={"name": name}, files={"file": file.read_bytes()})

    def costs(self, *, group_by: str) -> dict[str, Any]:
        """Return this month's usage and cost."""
        return self._call("GET", "/v1/costs", params={"group_by": group_by})

    def start_experiment(self, *, name: str, arms: list[dict[str, Any]]) -> dict[str, Any]:
        """Divides the tenant's requests between the arms."""
        return self._call("POST", "/v1/experiments", json={"name": name, "arms": arms})

    def stop_experiment(self, name: str) -> dict[str, Any]:
        return self._call("POST", f"/v1/experiments/{name}/stop")

    def experiments(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._call("GET", "/v1/experiments")["data"]
        return found

    def experiment(self, name: str) -> dict[str, Any]:
        """Return the experiment with its report."""
        return self._call("GET", f"/v1/experiments/{name}")

    def give_feedback(self, job_id: str, *, score: float) -> dict[str, Any]:
        """Record a user's score of a job's images, from 0 to 1."""
        return self._call("POST", f"/v1/jobs/{job_id}/feedback", json={"score": score})

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.api_key}"}
        try:
            answer = httpx.request(method, self.url + path, headers=headers, timeout=_TIMEOUT_SECONDS, **options)
        except httpx.HTTPError as error:
            raise Refused("unreachable", f"{self.url} does not answer ({error}); is `easel up` running?") from error
        try:
            content: dict[str, Any] = answer.json()
        except ValueError as error:
            raise Refused("not_easel", f"{self.url}{path} answered with HTTP {answer.status_code}, no JSON") from error
        if answer.is_error:
            raise Refused(content["error"]["code"], content["error"]["message"])
        return content
