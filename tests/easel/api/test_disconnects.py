"""Clients that go away, each over a socket of its own to a real server."""

import asyncio
import contextlib
import json

import pytest
import uvicorn

from core.threads import in_thread
from easel.api import images, waiting
from easel.asgi import application
from easel.jobs import queue
from easel.jobs.models import Job
from tests.conftest import NOW
from tests.easel.api.test_images import PATH, job_of


@contextlib.asynccontextmanager
async def served():
    """The application behind a server of its own."""
    server = uvicorn.Server(uvicorn.Config(application, port=0, lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server
    finally:
        server.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def asking(server, customer, content):
    """A client that has sent its request; it goes away at the end."""
    port = server.servers[0].sockets[0].getsockname()[1]
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer):
        sent = json.dumps(content).encode()
        head = f"POST {PATH} HTTP/1.1\r\nHost: easel.test\r\nAuthorization: Bearer {customer.secret}\r\n"
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n".encode() + sent)
        yield


def gone(customer, content, *, taken=False):
    """The job of a client that goes away while it waits; `taken`: once the job is in a worker's hands."""

    async def come_and_go():
        # The server ends when it has done with every client.
        async with served() as server, asking(server, customer, content):
            job = await job_of(customer)
            if taken:
                await in_thread(lambda: queue.release(pool=job.pool, now=NOW, lease_seconds=3600))
            async with asyncio.timeout(30):
                while job.id not in waiting.followed():
                    await asyncio.sleep(0.01)
        return job

    job = asyncio.run(come_and_go())
    return Job.objects.get(id=job.id)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_leaves_its_job_alone(alice, body, stream):
    job = gone(alice, body(stream=stream))
    assert (job.state, job.cancel_requested_at) == ("queued", None)


@pytest.mark.parametrize("stream", [False, True])
def test_unless_it_asked_for_its_cancellation(alice, body, stream):
    assert gone(alice, body(stream=stream, cancel_on_disconnect=True)).state == "canceled"


def test_a_worker_that_has_the_job_is_asked_to_stop(alice, body):
    job = gone(alice, body(cancel_on_disconnect=True), taken=True)
    assert (job.state, job.cancel_requested_at is not None) == ("dispatched", True)


def test_what_is_admitted_while_its_client_leaves_is_canceled_too(alice, body, monkeypatch):
    async def leave():
        admitted, left = asyncio.Event(), asyncio.Event()

        submit = images._submit_images

        async def slow(request):
            answer = await submit(request)
            admitted.set()
            await left.wait()
            return answer

        monkeypatch.setattr(images, "_submit_images", slow)
        async with served() as server:
            async with asking(server, alice, body(cancel_on_disconnect=True)):
                await admitted.wait()
            async with asyncio.timeout(30):
                while not any(task.cancelling() for task in asyncio.all_tasks()):
                    await asyncio.sleep(0.01)
            left.set()

    asyncio.run(leave())
    assert Job.objects.get(tenant=alice.tenant).state == "canceled"
