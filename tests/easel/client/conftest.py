"""The client against the real API behind a real server; the tests play the worker."""

import asyncio
import json
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn

from core.threads import REQUESTS, in_thread
from easel.asgi import application
from easel.jobs.models import Job
from easel_client import Easel, images
from tests.conftest import Customer
from tests.easel.api.conftest import end_job

JOB = re.compile(r"GET /v1/jobs/([0-9a-f-]{36})$")


@dataclass
class Scripted:
    """An answer that stands for the API's own, to a request whose `METHOD /path` matches."""

    pattern: str
    status: int
    body: dict[str, Any]
    headers: dict[str, str]


@dataclass
class Served:
    """The API on a port. A job that a client asks about is ended before the answer, as a quick worker would."""

    url: str = ""
    asked: list[str] = field(default_factory=list)  # `METHOD /path` of every request
    scripted: deque[Scripted] = field(default_factory=deque)
    works: bool = True  # False: jobs stay as they are
    # Called with `METHOD /path` after the API has done its work and before the answer is sent.
    before_answer: Callable[[str], None] = lambda asked: None
    # Called with the id of each job that a worker takes, and returns how it ends.
    outcome: Callable[[str], dict[str, Any]] = lambda job_id: {}

    def refuse(self, pattern: str, status: int, code: str, *, kind: str = "", **headers: str) -> None:
        """Answer the next request that matches with a refusal. Names of headers have `_` for `-`."""
        body = {"error": {"message": f"scripted {code}.", "type": kind, "param": None, "code": code}}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.scripted.append(Scripted(pattern, status, body, given))

    @staticmethod
    def page(status: int) -> Scripted:
        """An answer of something else, for example of a proxy."""
        return Scripted("", status, {}, {"content-type": "text/html"})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        asked = f"{scope['method']} {scope['path']}"
        self.asked.append(asked)
        if self.scripted and re.search(self.scripted[0].pattern, asked):
            await self._answer(self.scripted.popleft(), send)
            return
        if self.works and (job := JOB.match(asked)):
            await in_thread(self._work, job[1], threads=REQUESTS)
        sent: list[Any] = []

        async def collect(message: Any) -> None:
            sent.append(message)

        await application(scope, receive, collect)
        await asyncio.to_thread(self.before_answer, asked)
        for message in sent:
            await send(message)

    async def _answer(self, scripted: Scripted, send: Any) -> None:
        headers = {"content-type": "application/json", "x-request-id": "scripted-1", **scripted.headers}
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": scripted.status, "headers": pairs})
        await send({"type": "http.response.body", "body": json.dumps(scripted.body).encode()})

    def _work(self, job_id: str) -> None:
        with _worker:
            if Job.objects.filter(id=job_id, finished_at=None).exists():
                end_job(job_id, **self.outcome(job_id))


_worker = threading.Lock()  # of one job after the other


@pytest.fixture
def served(settings_of: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(images, "_POLL_SECONDS_MIN", 0.001)
    app = Served()
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_config=None, access_log=False))
    sockets = [server.config.bind_socket()]
    thread = threading.Thread(target=server.run, kwargs={"sockets": sockets})
    thread.start()
    app.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    settings_of(public_url=app.url)
    yield app
    server.should_exit = True
    thread.join()


@pytest.fixture
def client_of(served: Served) -> Iterator[Callable[..., Easel]]:
    """A client with a customer's key, which never really sleeps: `client_of(alice)`."""
    made: list[Easel] = []

    def make(customer: Customer, **options: Any) -> Easel:
        made.append(Easel(served.url, customer.secret, **{"sleep": lambda seconds: None, **options}))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(client_of: Callable[..., Easel], alice: Customer) -> Easel:
    return client_of(alice)
