"""Generates from a list of prompts, and goes on where an earlier run stopped.

    results = generate_many(["a red circle", "a blue square"], folder="out")

Every request becomes a job with an idempotency key that is derived from the run in `folder` and from the request. A
run that was interrupted at any moment, by Ctrl-C, a crash or spent credit, is continued by the same call: what is
finished is neither generated nor charged again.
"""

import hashlib
import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from easel_client.client import FINAL, Easel, Job
from easel_client.errors import (
    AuthenticationFailed,
    EaselError,
    JobFailed,
    NotFound,
    PermissionDenied,
    QuotaExhausted,
    Refused,
    ServerError,
    Unreachable,
)
from easel_client.journal import Entry, Journal
from easel_client.pacing import Pace
from easel_client.progress import OnProgress, Progress, shown
from easel_client.transport import retry_seconds, write_whole
from easel_client.types import JobImage, JobUsage

T = TypeVar("T")
_POLL_SECONDS_MIN, _POLL_SECONDS_MAX = 0.2, 2.0
_FETCHES_MAX = 6  # of one image, each time with a fresh URL
# The server knows an idempotency key for a day. After that a job whose id was lost is looked for by its metadata.
_KEY_SECONDS = 23 * 3600
_METADATA, _METADATA_MAX = "easel_run_item", 16
_ENDINGS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"RIFF": "webp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The outcome of a request: image files with their seeds and the job's usage and cost, or an error."""

    request: Mapping[str, Any]
    job_id: str | None = None
    files: tuple[Path, ...] = ()
    seeds: tuple[int, ...] = ()
    usage: JobUsage | None = None
    resumed: bool = False  # True if an earlier run had finished it
    error: EaselError | None = None


class RunStopped(EaselError):
    """A run stopped before its end. `results` has those of the finished requests, in order, and None for the others."""

    code = "run_stopped"

    def __init__(self, cause: EaselError, results: list[Result | None], journal: Path) -> None:
        finished = sum(result is not None for result in results)
        super().__init__(
            f"stopped after {finished} of {len(results)} requests: {cause} The run is saved in {journal}: "
            f"call again with the same folder to go on; what is finished isn't charged again.",
            code=cause.code,
            request_id=cause.request_id,
        )
        self.results = results


def generate_many(
    requests: Iterable[str | Mapping[str, Any]],
    *,
    folder: str | os.PathLike[str],
    client: Easel | None = None,
    concurrency: int = 4,
    progress: bool | OnProgress = True,
    patience_seconds: float = 600,
) -> list[Result]:
    """Generate the images of all requests into `folder`, and return their results in order.

    A request is a prompt, or the fields of `POST /v1/jobs`. `concurrency` is how many jobs are unfinished at once. A
    request that the API refuses, or whose job fails, has an `error` in its result, and the next run tries it again.
    A limit of requests or of waiting jobs is waited for. While the server does not answer, the run goes on trying for
    `patience_seconds`.

    Raises `RunStopped` when going on makes no sense: credit or a budget is spent, the key is refused, or the server
    stays away. Raises `FolderInUse`, `JournalUnreadable`. Ctrl-C leaves the jobs that were begun to the next run.
    """
    if concurrency < 1:
        raise ValueError("concurrency must be at least 1")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    given = client or Easel()
    try:
        with Journal(target, server=given.url, now=time.time()) as journal, shown(progress) as show:
            items = _items(requests)
            run = _Run(given, journal, target, items, show, patience_seconds)
            return run.generate(concurrency)
    finally:
        if client is None:
            given.close()


@dataclass(frozen=True, slots=True)
class _Item:
    """A request with its key: a digest of its fields, and of its place among requests with the same fields."""

    key: str
    request: dict[str, Any]


def _items(requests: Iterable[str | Mapping[str, Any]]) -> list[_Item]:
    seen: Counter[str] = Counter()
    items = []
    for one in requests:
        fields = {"prompt": one} if isinstance(one, str) else {k: v for k, v in one.items() if v is not None}
        text = json.dumps(fields, sort_keys=True)
        seen[text] += 1
        items.append(_Item(hashlib.sha256(f"{seen[text]} {text}".encode()).hexdigest()[:16], fields))
    return items


class _Stopped(Exception):
    """Nothing more is sent, because of `error`."""

    def __init__(self, error: EaselError) -> None:
        self.error = error


@dataclass(slots=True)
class _Run:
    client: Easel
    journal: Journal
    folder: Path
    items: list[_Item]
    show: OnProgress
    patience_seconds: float
    results: dict[str, Result] = field(default_factory=dict)
    running: int = 0
    pace: Pace = field(default_factory=Pace)
    stopped: _Stopped | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        # The run decides about retries itself, for all threads at once.
        self.client = self.client.without_retries().observed(self.pace.observe)

    def generate(self, concurrency: int) -> list[Result]:
        threads = ThreadPoolExecutor(concurrency, thread_name_prefix="easel")
        futures: list[Future[None]] = [threads.submit(self._item, item) for item in self.items]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            # After an interruption the threads end at their next step.
            self.pace.interrupt()
            threads.shutdown(wait=True, cancel_futures=True)
        found = [self.results.get(item.key) for item in self.items]
        if self.stopped is not None:
            raise RunStopped(self.stopped.error, found, self.journal.path) from self.stopped.error
        return [result for result in found if result is not None]

    def _item(self, item: _Item) -> None:
        try:
            result = self._result(item)
        except _Stopped as stopped:
            self.stopped = self.stopped or stopped
            return
        with self.lock:
            self.results[item.key] = result
            self._report(_latest(result))

    def _result(self, item: _Item) -> Result:
        entry = self.journal[item.key]
        if entry.files is not None and all((self.folder / name).exists() for name in entry.files):
            return self._finished(item, entry, resumed=True)
        self._count(1)
        try:
            job = self._ended(self._job(item, entry))
            if job["status"] != "succeeded":
                raise JobFailed(job)
            files = self._files(item, job)
        except (Refused, JobFailed) as error:
            # Only what made nothing is asked for anew by the next run: a job that succeeded was charged.
            if entry.job is None or isinstance(error, JobFailed):
                self._write(item, error=error.code)
            return Result(request=item.request, job_id=entry.job, error=error)
        finally:
            self._count(-1)
        seeds = [image["seed"] for image in job["images"]]
        self._write(item, files=[file.name for file in files], seeds=seeds, usage=job["usage"], error=None)
        return self._finished(item, entry, resumed=False)

    def _finished(self, item: _Item, entry: Entry, *, resumed: bool) -> Result:
        usage: Any = entry.usage
        return Result(
            request=item.request,
            job_id=entry.job,
            files=tuple(self.folder / name for name in entry.files or ()),
            seeds=tuple(entry.seeds),
            usage=usage,
            resumed=resumed,
        )

    # --- the job

    def _job(self, item: _Item, entry: Entry) -> Job:
        """Return the item's job: the one of an earlier run, or a new one."""
        if entry.job is not None and entry.error is None:
            return self._read(entry.job)
        job: Job | None = None
        if entry.error is not None or entry.sent_at is None:
            self._begin_attempt(item, entry)
        elif time.time() - entry.sent_at > _KEY_SECONDS:
            job = self._lost_job(item, entry.sent_at)
        job = job or self._tried(lambda: self._create(item, entry), sends=True)
        self._write(item, job=job["id"])
        return job

    def _begin_attempt(self, item: _Item, entry: Entry) -> None:
        self.pace.wait()
        if self.stopped is not None:
            raise self.stopped
        self._write(item, attempt=entry.attempt + 1, sent_at=time.time(), job=None, error=None, files=None)

    def _create(self, item: _Item, entry: Entry) -> Job:
        mark = self._mark(item, entry)
        body: Any = dict(item.request)
        metadata = body.get("metadata", {})
        if isinstance(metadata, Mapping) and len(metadata) < _METADATA_MAX:
            body["metadata"] = {**metadata, _METADATA: mark}
        return self.client.jobs.create(idempotency_key=mark, **body)

    def _mark(self, item: _Item, entry: Entry) -> str:
        """Return the idempotency key of the item's job."""
        return f"{self.journal.run}-{item.key}-{entry.attempt}"

    def _lost_job(self, item: _Item, sent_at: float) -> Job | None:
        """Return the job that was made shortly before a crash; None if the request had not arrived."""
        mark = self._mark(item, self.journal[item.key])
        oldest = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(sent_at - 3600))

        def look() -> Job | None:
            for job in self.client.jobs.iterate(limit=100):
                if job["metadata"].get(_METADATA) == mark:
                    return job
                if job["created_at"] < oldest:
                    return None
            return None

        return self._tried(look)

    def _ended(self, job: Job) -> Job:
        pause_seconds = _POLL_SECONDS_MIN
        while job["status"] not in FINAL:
            self.pace.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 1.2, _POLL_SECONDS_MAX)
            job = self._read(job["id"])
        return job

    def _read(self, job_id: str) -> Job:
        return self._tried(lambda: self.client.jobs.get(job_id))

    # --- its images

    def _files(self, item: _Item, job: Job) -> list[Path]:
        if not job["images"]:
            raise NotFound("the images were deleted", code="images_deleted", status=410)
        files = []
        for place in range(len(job["images"])):
            content = self._image(job["id"], place, job["images"][place])
            name = re.sub(r"[^a-z0-9]+", "-", str(item.request.get("prompt", "")).lower()).strip("-")[:40].strip("-")
            ending = next((ending for head, ending in _ENDINGS.items() if content.startswith(head)), "png")
            number = f"-{place + 1}" if len(job["images"]) > 1 else ""
            file = self.folder / f"{f'{name}-' if name else ''}{item.key[:8]}{number}.{ending}"
            write_whole(file, iter([content]))
            files.append(file)
        return files

    def _image(self, job_id: str, place: int, image: JobImage) -> bytes:
        """Return an image. Its URL may have expired, so each further attempt has a new one from the job."""
        for attempt in range(_FETCHES_MAX):
            try:
                content = self.client.fetch(image["url"])
                if len(content) == image["size_bytes"]:
                    return content
                error: EaselError = Unreachable(f"the image has {len(content)} of {image['size_bytes']} bytes")
            except EaselError as refusal:
                error = refusal
            if attempt + 1 < _FETCHES_MAX:
                self.pace.sleep(retry_seconds(error, attempt))
                images = self._read(job_id)["images"]
                if len(images) <= place:
                    raise NotFound("the images were deleted", code="images_deleted", status=410)
                image = images[place]
        if error.retryable:
            raise self._stop(error)
        raise NotFound(f"the image can't be fetched: {error}", code="image_unavailable", status=404)

    # --- refusals

    def _tried(self, call: Callable[[], T], *, sends: bool = False) -> T:
        """Return what a call returns, after as many attempts as it takes.

        Raises `Refused` for what no other attempt can change, and `_Stopped` for what stops the whole run. With
        `sends` a call makes a job, and waits for its turn.
        """
        since, attempt = time.monotonic(), 0
        while True:
            if sends:
                self.pace.wait()
                if self.stopped is not None:
                    raise self.stopped
            try:
                found = call()
            except EaselError as error:
                if isinstance(error, QuotaExhausted | AuthenticationFailed | PermissionDenied):
                    raise self._stop(error) from error
                if not error.retryable:
                    raise
                seconds = retry_seconds(error, attempt)
                is_outage = isinstance(error, Unreachable | ServerError)
                if is_outage and time.monotonic() - since + seconds > self.patience_seconds:
                    raise self._stop(error) from error
                attempt += 1
                if not is_outage:
                    since = time.monotonic()
                    self.pace.pause(seconds)
                self._report(waiting=f"{error} ({error.code})")
                self.pace.sleep(seconds)
            else:
                return found

    def _stop(self, error: EaselError) -> _Stopped:
        self.stopped = self.stopped or _Stopped(error)
        return self.stopped

    # --- what is written and shown

    def _write(self, item: _Item, **change: Any) -> None:
        with self.lock:
            self.journal.write(item.key, **change)

    def _count(self, change: int) -> None:
        with self.lock:
            self.running += change

    def _report(self, latest: str = "", *, waiting: str | None = None) -> None:
        with self.lock:
            found = list(self.results.values())
            self.show(
                Progress(
                    total=len(self.items),
                    done=len(found),
                    resumed=sum(one.resumed for one in found),
                    failed=sum(one.error is not None for one in found),
                    running=self.running,
                    waiting=waiting,
                    latest=latest,
                )
            )


def _latest(result: Result) -> str:
    if result.error is not None:
        return f"{result.request.get('prompt', '')!r}: {result.error} ({result.error.code})"
    return ", ".join(file.name for file in result.files)
