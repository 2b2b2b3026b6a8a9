"""Clients that go away, each over a socket of its own to a real server."""

import asyncio
import contextlib
import json
import threading
from datetime import UTC, datetime, timedelta

import pytest

from billing.ledger.accounts import balances_by_kind
from core.threads import in_thread
from easel.api import images, submission, waiting
from easel.jobs import dispatch, lifecycle
from easel.jobs.models import Job
from easel.jobs.retries import job_abandon
from easel.processes import scheduler
from inference.contract import AttemptProgress
from tests.conftest import NOW, worker_beat
from tests.easel.api.conftest import ask, end_job
from tests.easel.api.serving import happened, port_of, served
from tests.easel.api.test_images import PATH, job_of


@contextlib.asynccontextmanager
async def asking(server, customer, content, headers=None):
    """A client that has sent its request; it goes away at the end."""
    _, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
    with contextlib.closing(writer):
        sent = json.dumps(content).encode()
        given = {
            "Host": "easel.test",
            "Authorization": f"Bearer {customer.secret}",
            "Content-Type": "application/json",
            "Content-Length": str(len(sent)),
            **(headers or {}),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        writer.write(f"POST {PATH} HTTP/1.1\r\n{head}\r\n".encode() + sent)
        yield


def take(job):
    dispatch.release(pool=job.pool, now=NOW, lease_seconds=3600)


def begin(job):
    take(job)
    progress = AttemptProgress(attempt_token=str(job.attempts.get().token), steps_done=1, steps_total=8)
    lifecycle.beat(pool=job.pool, report=worker_beat(attempts=(progress,)), now=NOW, lease_seconds=3600)


def gone(customer, content, *, before=None, headers=None):
    """The job of a client that goes away while it waits; `before` happens to the job while its client is there."""

    async def come_and_go():
        # The server ends when it has done with every client.
        async with served() as server, asking(server, customer, content, headers):
            job = await job_of(customer)
            if before is not None:
                await in_thread(before, job)
            await happened(lambda: job.id in waiting.followed())
        return job

    job = asyncio.run(come_and_go())
    return Job.objects.get(id=job.id)


def sweep(customer, *, seconds):
    """What the scheduler does so many seconds from now."""
    scheduler.cancel_abandoned_jobs(datetime.now(UTC) + timedelta(seconds=seconds), tenants=[customer.tenant])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fields", [{}, {"cancel_on_disconnect": None}, {"cancel_on_disconnect": True}])
def test_a_queued_job_is_canceled_when_its_client_goes_away_and_costs_nothing(alice, body, stream, fields):
    before = balances_by_kind(alice.tenant)
    assert gone(alice, body(stream=stream, **fields)).state == "canceled"
    assert balances_by_kind(alice.tenant) == before


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("before", "state"), [(take, "dispatched"), (begin, "running")])
def test_a_job_that_a_worker_has_goes_on_for_a_minute_and_is_then_canceled(alice, body, stream, before, state):
    job = gone(alice, body(stream=stream), before=before)
    sweep(alice, seconds=59)
    job.refresh_from_db()
    assert (job.state, job.cancel_requested_at) == (state, None)
    sweep(alice, seconds=61)
    job.refresh_from_db()
    assert (job.state, job.cancel_requested_at is not None) == (state, True)


def test_a_job_that_ends_within_that_minute_stays_and_is_charged(alice, body):
    job = gone(alice, body(), before=begin)
    end_job(str(job.id))
    sweep(alice, seconds=61)
    job.refresh_from_db()
    assert job.state == "succeeded"
    assert balances_by_kind(alice.tenant)["revenue"] > 0


@pytest.mark.parametrize("before", [None, begin])
def test_a_job_outlives_its_client_if_the_client_said_so(alice, body, before):
    job = gone(alice, body(cancel_on_disconnect=False), before=before)
    sweep(alice, seconds=3600)
    job.refresh_from_db()
    assert (job.finished_at, job.cancel_requested_at) == (None, None)


def test_a_worker_is_asked_to_stop_at_once_if_the_client_said_so(alice, body):
    job = gone(alice, body(cancel_on_disconnect=True), before=begin)
    assert (job.state, job.cancel_requested_at is not None) == ("running", True)


KEY = {"Idempotency-Key": "key-1"}


def test_a_client_with_an_idempotency_key_finds_its_queued_job_within_a_minute(alice, body):
    job = gone(alice, body(), headers=KEY)
    sweep(alice, seconds=59)

    async def come_back():
        answer = asyncio.create_task(ask("POST", PATH, secret=alice.secret, json=body(), headers=KEY))
        await happened(lambda: Job.objects.filter(id=job.id, abandoned_at=None).exists())
        await in_thread(sweep, alice, seconds=61)
        await in_thread(end_job, str(job.id))
        return await answer

    answer = asyncio.run(come_back())
    assert (answer.json()["job_id"], answer.headers["Idempotent-Replayed"]) == (str(job.id), "true")


def test_the_key_of_a_job_that_was_canceled_for_its_clients_absence_makes_another_job(alice, body):
    job = gone(alice, body(), headers=KEY)
    sweep(alice, seconds=61)
    job.refresh_from_db()
    assert job.state == "canceled"

    async def come_back():
        answer = asyncio.create_task(ask("POST", PATH, secret=alice.secret, json=body(), headers=KEY))
        await happened(lambda: Job.objects.filter(tenant=alice.tenant).count() == 2)
        await in_thread(end_job, str((await job_of(alice)).id))
        return await answer

    answer = asyncio.run(come_back())
    assert answer.status_code == 200
    assert answer.json()["job_id"] != str(job.id)
    assert "Idempotent-Replayed" not in answer.headers


def test_a_job_is_not_abandoned_while_another_client_with_its_key_waits_for_it(alice, body, monkeypatch):
    monkeypatch.setattr(waiting, "RECHECK_SECONDS", 0.05)

    def leave(job):
        """What another process does at the disconnect of its client."""
        job_abandon(job_id=job.id, retry_count=None, returns=True, cancels=False, now=datetime.now(UTC))

    async def one_of_two_leaves():
        async with served() as server, asking(server, alice, body(), KEY):
            job = await job_of(alice)
            await happened(lambda: job.id in waiting.followed())
            await in_thread(leave, job)
            await happened(lambda: Job.objects.filter(id=job.id, abandoned_at=None).exists())
            await in_thread(sweep, alice, seconds=61)
            await in_thread(end_job, str(job.id))
        return job

    job = asyncio.run(one_of_two_leaves())
    assert Job.objects.get(id=job.id).state == "succeeded"


def test_a_server_that_stops_cancels_no_job_of_its_clients(alice, body):
    async def stop():
        async with served(timeout_graceful_shutdown=0) as server, contextlib.AsyncExitStack() as clients:
            await clients.enter_async_context(asking(server, alice, body()))
            job = await job_of(alice)
            await happened(lambda: job.id in waiting.followed())
            server.should_exit = True
            await happened(lambda: job.id not in waiting.followed())
        return job

    job = Job.objects.get(id=asyncio.run(stop()).id)
    assert (job.state, job.abandoned_at) == ("queued", None)


def test_nothing_is_admitted_for_a_client_that_left_before(alice, body, monkeypatch):
    planned, left = asyncio.Event(), threading.Event()
    prepared = submission.job_prepared

    async def leave():
        loop = asyncio.get_running_loop()

        @contextlib.contextmanager
        def slow(**terms):
            with prepared(**terms) as found:
                loop.call_soon_threadsafe(planned.set)
                left.wait()
                yield found

        monkeypatch.setattr(submission, "job_prepared", slow)
        async with served() as server:
            async with asking(server, alice, body()):
                await planned.wait()
            async with asyncio.timeout(30):
                while not any(task.cancelling() for task in asyncio.all_tasks()):
                    await asyncio.sleep(0.01)
            left.set()

    asyncio.run(leave())
    assert not Job.objects.filter(tenant=alice.tenant).exists()


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
