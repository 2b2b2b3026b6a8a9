"""Requests that schemathesis makes of the OpenAPI document, aimed at objects that are there; a thread plays the worker.

Random names are refused at the first look-up. So most requests name the model of the test and objects of the caller, or
of the other tenant, and a part of the bodies is a good one with some fields of the made one.
"""

import asyncio
import contextlib
import io
import json
import random
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import requests
from django.db import connections
from requests.models import PreparedRequest

from core import clock
from easel.asgi import application
from easel.batches.lifecycle import batches_advance
from easel.catalog.models import Pool
from easel.jobs import dispatch, lifecycle
from easel.jobs.models import Attempt, Job
from easel.jobs.storage_keys import preview_key
from easel.storage import store
from inference.contract import AttemptProgress
from tenants.keys import key_issue
from tenants.models import Scope
from tests.conftest import NOW, PEPPER, Customer, worker_beat
from tests.easel.api.conftest import PNG, end_attempt
from tests.easel.api.objects import KINDS, PARTS, REFERENCES, objects_of
from tests.easel.privacy.conftest import secret_of

BASE = "http://easel.test"
ANSWER_SECONDS = 60  # far more than any answer takes: past them there is none
TURN_SECONDS = 0.02  # between two looks of the worker at its pool
# Cursors that are a place in the order of ids: none is looked up, and another tenant's id is like one that isn't there.
PLACES = {("statements_line_charges", "after")}
NAME_CHARS_MIN = 12  # a made name such as "0" can be both tenants', and is in any answer
REMEMBERED = 6  # newest objects of a kind that requests name

# What an operation makes, or tells of: its kind, and the field of its answer that names it.
MADE = {
    "files_create": [("file", "id")],
    "batches_create": [("batch", "id")],
    "batches_get": [("file", "output_file_id"), ("file", "error_file_id")],
    "jobs_create": [("job", "id")],
    "images_generations": [("job", "job_id")],
    "experiments_start": [("experiment", "name")],
    "adapters_upload": [("adapter", "name")],
    "budgets_set": [("budget", "id")],
    "webhooks_create": [("webhook", "id")],
}


class Caller:
    """A tenant with one object of each kind at least, a key of every scope, and one that only reads."""

    def __init__(self, customer: Customer, furnish: Callable[[Customer], Any]) -> None:
        self.customer = customer
        self.known: dict[str, list[str]] = defaultdict(list)
        for kind, name in objects_of(customer, furnish).items():
            self.known[kind].append(name)
        _, self.reading = key_issue(project=customer.project, scopes=[Scope.READ], pepper=PEPPER, now=NOW)

    def learn(self, operation_id: str, answer: httpx.Response) -> None:
        """Remember what a request has made."""
        if answer.is_success:
            for kind, name in MADE.get(operation_id, ()):
                made = answer.json()[name] if answer.headers["Content-Type"] == "application/json" else None
                if made and len(made) >= NAME_CHARS_MIN:
                    self.known[kind] = [*self.known[kind][-REMEMBERED:], made]

    def words(self) -> set[str]:
        """What no other tenant may be told: the word that is in all of its texts, and the names of its objects."""
        return {
            secret_of(self.customer),
            self.customer.tenant.slug,
            *(one for all_ in self.known.values() for one in all_),
        }


@dataclass
class Sent:
    """A request, with the objects of the other tenant that it names."""

    request: PreparedRequest
    reads_only: bool
    foreign: list[str]


class Aim:
    """Changes made requests, so that a part of them reaches what is behind the look-ups."""

    def __init__(self, *, rng: random.Random, model: str, jsonl: bytes, weights: bytes) -> None:
        self.rng, self.model, self.jsonl, self.weights = rng, model, jsonl, weights

    def sent(self, case: Any, caller: Caller, other: Caller) -> Sent | None:
        """Return the request to be sent; None if no HTTP client sends it."""
        name, foreign = case.operation.definition.raw["operationId"], list[str]()
        if case.path_parameters:
            case.path_parameters = self._path(case, caller, other, foreign)
        if in_query := {one.name for one in case.operation.query}:
            case.query = self._references(name, dict(case.query or {}), in_query, caller, other, foreign)
        if case.media_type and (case.body is None or isinstance(case.body, dict) or self.rng.random() < 0.5):
            made = dict(case.body) if isinstance(case.body, dict) else {}
            case.body = self._body(name, made, caller, other, foreign)
        reads_only = self.rng.random() < 0.2
        kwargs = case.as_transport_kwargs(base_url=BASE)
        headers = {one: value for one, value in dict(kwargs.pop("headers", {})).items() if _is_sent(one, value)}
        headers["Authorization"] = f"Bearer {caller.reading if reads_only else caller.customer.secret}"
        if case.method == "POST" and self.rng.random() < 0.15:
            headers["Idempotency-Key"] = f"key-{self.rng.randrange(5)}"  # both tenants', for bodies of several calls
        kwargs.pop("cookies", None)
        try:
            return Sent(requests.Request(headers=headers, **kwargs).prepare(), reads_only, foreign)
        except (ValueError, requests.RequestException):
            return None

    def _path(self, case: Any, caller: Caller, other: Caller, foreign: list[str]) -> dict[str, Any]:
        found = dict(case.path_parameters)
        whose = self.rng.choices(("own", "foreign", "mixed", "junk"), weights=(50, 25, 10, 15))[0]
        for parameter in found:
            if parameter in PARTS:
                found[parameter] = PARTS[parameter] if self.rng.random() < 0.7 else found[parameter]
            elif whose != "junk":
                kind = KINDS.get(parameter) or KINDS[case.operation.path]
                owner = caller if whose == "own" or (whose == "mixed" and self.rng.random() < 0.5) else other
                if whose == "mixed":
                    kind = self.rng.choice(sorted(owner.known))
                found[parameter] = self.rng.choice(owner.known[kind])
                if owner is other:
                    foreign.append(found[parameter])
        return found

    def _body(
        self, name: str, made: dict[str, Any], caller: Caller, other: Caller, foreign: list[str]
    ) -> dict[str, Any]:
        if self.rng.random() < 0.5:
            mixed_in = self.rng.sample(sorted(made), min(len(made), self.rng.choice((0, 0, 1, 3))))
            made = {**self._good(name, caller), **{one: made[one] for one in mixed_in}}
        made = self._references(name, made, set(REFERENCES.get(name, ())), caller, other, foreign)
        if isinstance(made.get("expires_in_seconds"), int) and 0 < made["expires_in_seconds"] < 600:
            made["expires_in_seconds"] = 600  # a job that expires is a 503
        if "file" in made and not isinstance(made["file"], bytes) and self.rng.random() < 0.7:
            made["file"] = b"\x00\xff"
        return made

    def _good(self, name: str, caller: Caller) -> dict[str, Any]:
        least = {"model": self.model, "prompt": "a red circle"}
        if name == "images_generations" and self.rng.random() < 0.5:
            return {**least, "stream": True, "partial_images": self.rng.randrange(3)}
        if name in ("images_generations", "images_quotes", "jobs_create"):
            return least
        word = f"{secret_of(caller.customer)}-{uuid.UUID(int=self.rng.getrandbits(128)).hex[:8]}"
        arms = [{"name": arm, "weight": 50} for arm in ("a", "b")]
        good: dict[str, dict[str, Any]] = {
            "files_create": {"purpose": "batch", "file": self.jsonl},
            "batches_create": {
                "input_file_id": caller.known["file"][-1],
                "endpoint": "/v1/images/generations",
                "completion_window": "1h",
            },
            "jobs_feedback": {"score": 0.5},
            "experiments_start": {"name": word, "model": self.model, "arms": arms},
            "adapters_upload": {"name": word, "model": self.model, "file": self.weights},
            "budgets_set": {"amount_micros": 1_000_000_000},
            "webhooks_create": {"url": f"https://hooks.example/{word}"},
            "webhooks_change": {"enabled": True},
        }
        return good[name]

    def _references(
        self, name: str, made: dict[str, Any], fields: set[str], caller: Caller, other: Caller, foreign: list[str]
    ) -> dict[str, Any]:
        """Let the fields that can name an object name one."""
        for one, kind in REFERENCES.get(name, {}).items():
            if one not in fields:
                continue
            whose = self.rng.choices(("own", "foreign", "made"), weights=(25, 10, 65))[0]
            if whose == "made" or (one not in made and self.rng.random() < 0.7):
                if one == "model" and self.rng.random() < 0.8:
                    made[one] = self.model
                elif one == "adapters" and self.rng.random() < 0.7:
                    made.pop(one, None)
                continue
            owner = caller if whose == "own" else other
            value: Any = self.rng.choice(owner.known[kind])
            if owner is other and (name, one) not in PLACES:
                foreign.append(value)
            if one == "adapters":
                value = [{"name": value}]
            elif one == "arms":
                value = [{"name": "a", "weight": 50, "adapters": [{"name": value}]}, {"name": "b", "weight": 50}]
            made[one] = value
        return made


def _is_sent(name: str, value: Any) -> bool:
    """True for a header that an HTTP client sends, and this server's parser takes."""
    return (
        name.lower() not in ("authorization", "api-key", "host", "cookie")
        and str(value).isascii()
        and str(value).isprintable()
    )


async def answer_to(sent: PreparedRequest) -> httpx.Response:
    transport = httpx.ASGITransport(app=application, raise_app_exceptions=False)
    body = sent.body if isinstance(sent.body, bytes) else (sent.body or "").encode()
    headers = {name: value for name, value in sent.headers.items() if name.lower() != "content-length"}
    async with asyncio.timeout(ANSWER_SECONDS), httpx.AsyncClient(transport=transport, timeout=None) as client:
        return await client.request(str(sent.method), str(sent.url), headers=headers, content=body)


def leaks(answer: httpx.Response, other: Caller, sent: Sent) -> list[str]:
    """What an answer tells of another tenant, without what the request said itself."""
    text = answer.text
    for said in (str(sent.request.url), *sent.foreign):
        for form in (json.dumps(said)[1:-1], quote(said), quote(said, safe="")):
            text = text.replace(form, "")
    return sorted(word for word in other.words() if word in text)


@contextlib.contextmanager
def worker_played(pool: Pool) -> Iterator[None]:
    """A thread takes the pool's jobs and ends them with images until the block is left. All have ended before it."""
    beat(pool, ())
    settle(pool)
    leaves, broken = threading.Event(), list[BaseException]()

    def play() -> None:
        try:
            while not leaves.wait(TURN_SECONDS):
                work(pool)
        except BaseException as error:
            broken.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=play, name="worker")
    thread.start()
    try:
        yield
    finally:
        leaves.set()
        thread.join()
    if broken:
        raise broken[0]


def settle(pool: Pool) -> None:
    """End what waits in the pool, and its batches, so that nothing changes any more by itself."""
    while Job.objects.filter(pool=pool, finished_at=None).exists():
        work(pool)
    work(pool)
    batches_advance(now=clock.now())


def work(pool: Pool) -> None:
    """Do what the worker does: take the jobs that wait, store previews, and at the next call the images."""
    now = clock.now()
    begun = list(Attempt.objects.filter(job__pool=pool, state=Attempt.State.LIVE).select_related("job"))
    taken = dispatch.release(pool=pool, now=now, lease_seconds=3600)
    taken += dispatch.release_batch(pool=pool, now=now, lease_seconds=3600)
    beat(pool, [_previewed(attempt) for attempt in taken if attempt.job.partial_images])
    for attempt in [*begun, *(attempt for attempt in taken if not attempt.job.partial_images)]:
        end_attempt(attempt)


def beat(pool: Pool, progress: Sequence[AttemptProgress]) -> None:
    report = worker_beat(concurrency=1000, attempts=tuple(progress))
    lifecycle.beat(pool=pool, report=report, now=clock.now(), lease_seconds=3600)


def _previewed(attempt: Attempt) -> AttemptProgress:
    store().put(preview_key(attempt.job, attempt.token, 0, 0), io.BytesIO(PNG), "image/png")
    return AttemptProgress(attempt_token=str(attempt.token), steps_done=1, steps_total=8, previews=((0, 0),))
