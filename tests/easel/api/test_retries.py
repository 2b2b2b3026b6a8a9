"""Clients that time out and repeat an images call: by OpenAI's libraries over a real server, and request by request."""

import asyncio
import contextlib
import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import OperationalError, connection, connections

from billing.ledger.accounts import balances_by_kind
from core import clock
from core.threads import in_thread
from easel.api import submission
from easel.api.submission import retry_count_of
from easel.jobs import admission, dispatch, lifecycle
from easel.jobs.models import ClientCall, Job, State
from easel.jobs.retries import ABANDONED_SECONDS, ANSWERED_SECONDS, job_abandon
from easel.processes import scheduler
from easel.storage import store
from tenants.keys import key_issue, key_revoke
from tests.conftest import NOW, PEPPER, worker_beat
from tests.easel.api.conftest import PNG, ask, call, end_job
from tests.easel.api.libraries import TIMED_OUT, node_generate, python_generate
from tests.easel.api.serving import happened, port_of, served
from tests.easel.api.test_disconnects import asking
from tests.easel.api.test_images import PATH, job_of
from tests.easel.api.test_retry_machine import request_of, submitted


def jobs_of(customer):
    return Job.objects.filter(tenant=customer.tenant)


# --- OpenAI's libraries


@pytest.fixture(params=[python_generate, node_generate], ids=["python", "node"])
def generate(request, alice):
    """Starts a call of alice's by one of the libraries, at a server or at a port."""

    def make(server, content, *, seconds):
        port = server if isinstance(server, int) else port_of(server)
        return asyncio.create_task(asyncio.to_thread(request.param, port, alice.secret, content, seconds=seconds))

    return make


@contextlib.asynccontextmanager
async def worker_of(pool):
    """A worker that takes every job as it comes, and finishes none."""

    def take_all():
        lifecycle.beat(pool=pool, report=worker_beat(concurrency=1000), now=NOW, lease_seconds=3600)
        dispatch.release(pool=pool, now=NOW, lease_seconds=3600)

    async def work():
        while True:
            await in_thread(take_all)
            await asyncio.sleep(0.01)

    working = asyncio.create_task(work())
    try:
        yield
    finally:
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working


class IdleLimit:
    """A proxy that ends a connection on which nothing was answered for `idle_seconds`, as load balancers do."""

    def __init__(self, port, *, idle_seconds):
        self.port, self.idle_seconds, self.answered = port, idle_seconds, []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        return self.server.sockets[0].getsockname()[1]

    async def __aexit__(self, *_):
        self.server.close()

    async def answered_parts(self, count):
        """Return once so many reads had bytes of answers."""
        async with asyncio.timeout(60):
            while len(self.answered) < count:
                await asyncio.sleep(0.01)

    async def _pass(self, reader, writer):
        there, sender = await asyncio.open_connection("127.0.0.1", self.port)

        async def ask():
            while data := await reader.read(65536):
                sender.write(data)

        asking = asyncio.create_task(ask())
        with contextlib.closing(writer), contextlib.closing(sender), contextlib.suppress(TimeoutError):
            while data := await asyncio.wait_for(there.read(65536), self.idle_seconds):
                self.answered.append(data)
                writer.write(data)
        asking.cancel()


def test_a_call_that_times_out_twice_gets_its_picture_and_is_charged_once(alice, pool, body, generate):
    async def both():
        async with served() as server, worker_of(pool):
            images = generate(server, body(), seconds=(1, 1, 60))
            await happened(lambda: ClientCall.objects.filter(job__tenant=alice.tenant, retry_count=2).exists())
            await in_thread(end_job, str((await job_of(alice)).id))
            return await images

    assert asyncio.run(both()) == (PNG, None, 3)
    # A job that no worker had taken when its client left is canceled.
    assert jobs_of(alice).exclude(state="canceled").count() == 1
    # 1.5 GPU seconds at 0.0001 $, a quarter of an image unit at 0.002 $, a request at 0.0005 $
    assert balances_by_kind(alice.tenant)["revenue"] == 150 + 500 + 500


def test_a_call_whose_requests_all_time_out_in_the_queue_costs_nothing(alice, body, generate):
    before = balances_by_kind(alice.tenant)

    async def give_up():
        async with served() as server:
            return await generate(server, body(), seconds=(0.5, 0.5, 0.5))

    assert asyncio.run(give_up()).refused in TIMED_OUT  # the server ends when it has noticed every disconnect
    assert not jobs_of(alice).exclude(state="canceled").exists()
    assert balances_by_kind(alice.tenant) == before


def test_a_call_whose_requests_all_time_out_while_its_job_runs_is_never_charged_twice(alice, pool, body, generate):
    async def give_up():
        async with served() as server, worker_of(pool):
            return await generate(server, body(), seconds=(1, 1, 1))

    assert asyncio.run(give_up()).refused in TIMED_OUT
    assert jobs_of(alice).exclude(state="canceled").count() <= 1


# The library for Python repeats a call whose answer was broken off. The one for Node raises what fetch raises.
REFUSED = {python_generate: (None, "prompt_too_long", 2), node_generate: (None, "TypeError", 1)}


@pytest.mark.parametrize(("generate", "refused"), REFUSED.items(), indirect=["generate"], ids=["python", "node"])
def test_nobody_takes_an_answer_that_was_broken_off_for_a_success(alice, body, generate, refused, settings_of, caplog):
    settings_of(keepalive_seconds=0.05)

    async def both():
        async with served() as server:
            proxy = IdleLimit(port_of(server), idle_seconds=60)
            async with proxy as port:
                images = generate(port, body(), seconds=(60, 60, 60))
                await proxy.answered_parts(2)  # its head, and a sign of life
                job = await job_of(alice)
                await in_thread(lambda: end_job(str(job.id), outcome="failed", error_code="prompt_too_long"))
                return await images

    assert asyncio.run(both()) == refused
    assert jobs_of(alice).count() == 1
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]


def test_a_long_wait_survives_the_idle_limit_of_a_proxy(alice, body, generate, settings_of):
    settings_of(keepalive_seconds=0.25)

    async def both():
        async with served() as server:
            proxy = IdleLimit(port_of(server), idle_seconds=2)
            async with proxy as port:
                images = generate(port, body(), seconds=(60,))
                await proxy.answered_parts(12)  # 3 s, which is more than the limit
                await in_thread(end_job, str((await job_of(alice)).id))
                return await images

    assert asyncio.run(both()) == (PNG, None, 1)


def test_a_wait_without_signs_of_life_does_not_survive_it(alice, body, generate, settings_of):
    settings_of(keepalive_seconds=60)

    async def cut():
        async with served() as server, IdleLimit(port_of(server), idle_seconds=0.5) as port:
            return await generate(port, body(), seconds=(60,))

    assert asyncio.run(cut()) == (None, "APIConnectionError", 1)


# --- long waits, byte by byte


@contextlib.asynccontextmanager
async def answering(port, customer, content, http_version="1.1"):
    """The bytes of an answer, as they come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = json.dumps(content).encode()
    head = f"POST {PATH} HTTP/{http_version}\r\nHost: easel.test\r\nAuthorization: Bearer {customer.secret}\r\n"
    head += f"Content-Type: application/json\r\nConnection: close\r\nContent-Length: {len(sent)}\r\n\r\n"
    with contextlib.closing(writer):
        writer.write(head.encode() + sent)
        yield reader


@pytest.mark.parametrize(("http_version", "status", "is_whole"), [("1.1", b"200", False), ("1.0", b"504", True)])
def test_an_answer_that_began_is_broken_off_when_its_time_is_over(
    alice, body, settings_of, http_version, status, is_whole
):
    settings_of(keepalive_seconds=0.05, request_wait_seconds=0.3)

    async def wait():
        async with served() as server, answering(port_of(server), alice, body(), http_version) as answer:
            return await answer.read()

    head, _, content = asyncio.run(wait()).partition(b"\r\n\r\n")
    assert head.split()[1] == status
    assert b'"code":"timeout"' in content
    assert b"(position 1 of its queue)" in content
    assert (b" \r\n" in content, content.endswith(b"0\r\n\r\n")) == (not is_whole, is_whole)  # the last chunk
    if not is_whole:
        assert {b"cache-control: no-store", b"x-accel-buffering: no"} <= set(head.lower().split(b"\r\n"))


def test_spaces_precede_the_json_of_a_long_wait(alice, body, settings_of):
    settings_of(keepalive_seconds=0.05)

    async def both():
        async with served() as server, answering(port_of(server), alice, body()) as answer:
            head = await answer.readuntil(b"\r\n\r\n")
            signs = [await answer.readuntil(b" \r\n") for _ in range(3)]
            await in_thread(end_job, str((await job_of(alice)).id))
            return head, signs, await answer.read()

    head, signs, rest = asyncio.run(both())
    assert head.startswith(b"HTTP/1.1 200 ")
    assert signs == [b"1\r\n \r\n"] * 3  # chunks of one byte
    content = rest[rest.index(b"{") : rest.rindex(b"}") + 1]
    assert json.loads(content)["job_id"] == str(jobs_of(alice).get().id)
    assert rest.endswith(b"0\r\n\r\n")


# --- which job a retry joins


def retry(customer, content, **headers):
    """The answer to a retry, whose job is canceled meanwhile if it is a new one."""

    def cancel_queued():
        for job in jobs_of(customer).filter(state="queued"):
            lifecycle.cancel(job=job, now=clock.now())

    async def both():
        given = {"x-stainless-retry-count": "1", **headers}
        answer = asyncio.create_task(ask("POST", PATH, secret=customer.secret, json=content, headers=given))
        while not answer.done():
            await in_thread(cancel_queued)
            await asyncio.sleep(0.02)
        return await answer

    return asyncio.run(both())


@pytest.fixture
def first(body, settings_of):
    """The job of a call whose first request timed out while a worker had it: `first(alice)`."""

    def make(customer, *, end=None, content=None, **headers):
        content = content or body()
        settings_of(request_wait_seconds=0)
        given = {"x-stainless-retry-count": "0", **headers}
        call("POST", PATH, customer, json=content, headers=given)
        settings_of(request_wait_seconds=300)
        job = jobs_of(customer).latest("created_at")
        dispatch.release(pool=job.pool, now=NOW, lease_seconds=3600)
        job_abandon(job_id=job.id, retry_count=0, returns=False, cancels=False, now=clock.now())
        if end is not None:
            end_job(str(job.id), **end)
        return job

    return make


def test_a_retry_of_a_job_that_has_succeeded_is_answered_with_its_picture(alice, body, first):
    job = first(alice, end={})
    answer = retry(alice, body())
    assert (answer.json()["job_id"], answer.headers["Idempotent-Replayed"]) == (str(job.id), "true")


def test_a_retry_of_a_stream_joins_too(alice, body, first):
    job = first(alice, content=body(stream=True), end={})
    answer = retry(alice, body(stream=True))
    assert f'"job_id": "{job.id}"' in answer.text


def test_a_retry_of_a_job_that_failed_is_answered_with_its_refusal(alice, body, first):
    first(alice, end={"outcome": "failed", "error_code": "prompt_too_long"})
    answer = retry(alice, body())
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "prompt_too_long")


def test_a_retry_of_a_job_that_expired_is_answered_with_its_refusal(alice, body, settings_of):
    settings_of(request_wait_seconds=0)
    call("POST", PATH, alice, json=body(), headers={"x-stainless-retry-count": "0"})
    scheduler.expire_jobs(jobs_of(alice).get().expires_at, tenants=[alice.tenant])
    answer = call("POST", PATH, alice, json=body(), headers={"x-stainless-retry-count": "1"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "job_expired")
    assert (answer.headers["x-should-retry"], jobs_of(alice).count()) == ("false", 1)


@pytest.mark.parametrize("by_tenant", [True, False])
def test_a_canceled_job_is_not_joined(alice, body, first, by_tenant):
    job = first(alice)
    if by_tenant:
        Job.objects.filter(id=job.id).update(abandoned_at=None)
    lifecycle.cancel(job=job, now=clock.now())
    assert retry(alice, body()).json()["error"]["code"] == "job_canceled"  # the new one
    assert jobs_of(alice).count() == 2


def test_the_model_of_a_job_may_be_gone_when_its_retry_joins(alice, version, body, first):
    job = first(alice, end={})
    version.model.routes.all().delete()
    assert call("POST", PATH, alice, json=body()).status_code == 404
    assert retry(alice, body()).json()["job_id"] == str(job.id)


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"prompt": "a blue circle"}, {}),
        ({"n": 2}, {}),
        ({"stream": True}, {}),
        ({}, {"Idempotency-Key": "key-1"}),
        ({}, {"x-stainless-retry-count": "abc"}),
        ({}, {"x-stainless-retry-count": "-1"}),
        ({}, {"x-stainless-retry-count": "1000000000"}),
        ({}, {"x-stainless-retry-count": ""}),
        ({}, {"x-stainless-retry-count": "0"}),
    ],
)
def test_another_request_does_not_join(alice, body, first, fields, headers):
    first(alice, end={})
    retry(alice, body(**fields), **headers)
    assert jobs_of(alice).count() == 2


def test_another_tenant_and_another_key_of_the_tenant_do_not_join(alice, bob, body, first):
    job = first(alice, end={})
    _, alice.secret = key_issue(project=alice.project, pepper=PEPPER, now=NOW)
    retry(alice, body())
    retry(bob, body())
    assert (jobs_of(alice).count(), jobs_of(bob).count()) == (2, 1)
    assert ClientCall.objects.get(job=job).retry_count == 0


def test_a_call_of_another_endpoint_does_not_join(alice, body, first):
    first(alice, end={})
    assert call("POST", "/v1/jobs", alice, json=body(), headers={"x-stainless-retry-count": "1"}).status_code == 202
    assert jobs_of(alice).count() == 2


def test_a_revoked_key_joins_nothing(alice, body, first):
    first(alice, end={})
    key_revoke(key_id=alice.key.key_id, now=NOW)
    answer = call("POST", PATH, alice, json=body(), headers={"x-stainless-retry-count": "1"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("left", "seconds", "joins"),
    [
        (True, ABANDONED_SECONDS - 10, True),
        (True, ABANDONED_SECONDS + 10, False),
        (False, ANSWERED_SECONDS - 10, True),
        (False, ANSWERED_SECONDS + 10, False),
    ],
)
def test_a_job_answers_retries_for_a_time_after_its_end(alice, body, first, left, seconds, joins):
    job = first(alice, end={})
    past = clock.now() - timedelta(seconds=seconds)
    Job.objects.filter(id=job.id).update(finished_at=past, abandoned_at=past if left else None)
    ClientCall.objects.filter(job=job).update(requested_at=past)
    retry(alice, body())
    assert (jobs_of(alice).count() == 1) is joins


def test_calls_are_forgotten_once_no_retry_can_join_them(alice, first):
    job = first(alice, end={})
    ended_at = Job.objects.get(id=job.id).finished_at
    scheduler.delete_client_calls(ended_at + timedelta(seconds=ABANDONED_SECONDS - 1))
    assert ClientCall.objects.filter(job=job).exists()
    scheduler.delete_client_calls(clock.now() + timedelta(seconds=ABANDONED_SECONDS + 1))
    assert not ClientCall.objects.filter(job=job).exists()


def test_a_retry_that_comes_before_the_disconnect_is_noticed_keeps_its_job(alice, version):
    job_id = submitted(alice, version, 0)
    assert submitted(alice, version, 1) == job_id
    job_abandon(job_id=job_id, retry_count=0, returns=False, cancels=True, now=clock.now())
    job = Job.objects.get(id=job_id)
    assert (job.state, job.abandoned_at) == (State.QUEUED, None)


def test_a_request_that_its_own_retry_overtook_joins_the_retry(alice, version):
    job_id = submitted(alice, version, 2)
    assert submitted(alice, version, 1) == job_id
    job_abandon(job_id=job_id, retry_count=1, returns=False, cancels=False, now=clock.now())
    assert Job.objects.get(id=job_id).abandoned_at is None  # the later request waits


def test_retries_at_once_join_one_to_one(alice, version):
    jobs = {submitted(alice, version, 0) for _ in range(4)}
    for job_id in jobs:
        dispatch.release(pool=version.pool, now=NOW, lease_seconds=3600)
        job_abandon(job_id=job_id, retry_count=0, returns=False, cancels=False, now=clock.now())
    start = threading.Barrier(5)

    def send(_):
        start.wait()
        try:
            return submitted(alice, version, 1)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(5) as threads:
        joined = list(threads.map(send, range(5)))
    # Four join, each another job, and the fifth, whose first request never arrived, makes one.
    assert len(set(joined)) == 5
    assert jobs < set(joined)


def test_a_retry_that_waited_for_the_admission_of_its_first_request_joins_it(alice, version, monkeypatch):
    """Both are on their way through different processes; the first one commits while the retry has looked already."""
    looked, join = [], submission.call_join

    def looks_before_the_first_commits(request):
        found = join(request)
        if not looked:
            looked.append(submitted(alice, version, 0))
        return found

    monkeypatch.setattr(submission, "call_join", looks_before_the_first_commits)
    assert [submitted(alice, version, 1)] == looked
    assert jobs_of(alice).count() == 1


def test_a_retry_finds_its_job_after_the_server_was_stopped_and_started(alice, body):
    async def both():
        async with served(timeout_graceful_shutdown=0) as server, contextlib.AsyncExitStack() as clients:
            await clients.enter_async_context(asking(server, alice, body(), {"x-stainless-retry-count": "0"}))
            job = await job_of(alice)
            server.should_exit = True
            await happened(lambda: not server.server_state.connections)
        retried = {"x-stainless-retry-count": "1"}
        answer = asyncio.create_task(ask("POST", PATH, secret=alice.secret, json=body(), headers=retried))
        await happened(lambda: ClientCall.objects.get(job=job).retry_count == 1)
        await in_thread(end_job, str(job.id))
        return job, await answer

    job, answer = asyncio.run(both())
    assert (answer.json()["job_id"], answer.headers["Idempotent-Replayed"]) == (str(job.id), "true")


def test_a_numbered_request_takes_no_more_round_trips_than_another(alice, version, monkeypatch):
    trips = []
    run_pipelined = admission.run_pipelined
    monkeypatch.setattr(admission, "run_pipelined", lambda *queries: trips.append(1) or run_pipelined(*queries))

    def counted(retry_count):
        trips.clear()
        with connection.execute_wrapper(lambda run, *query: trips.append(1) or run(*query)):
            submitted(alice, version, retry_count)
        return len(trips)

    counted("none")  # opens the tenant's ledger accounts
    assert counted(0) == counted("none")
    assert ClientCall.objects.filter(job__tenant=alice.tenant).count() == 1


def test_an_error_that_a_retry_may_pass_is_repeated_by_a_library_that_joins(alice, body, first, monkeypatch):
    first(alice, end={})

    def unavailable(key):
        raise OperationalError("away")

    monkeypatch.setattr(store(), "get", unavailable)
    answer = retry(alice, body())
    assert (answer.status_code, answer.headers["x-should-retry"]) == (503, "true")


def test_a_retry_count_is_a_small_number_or_none():
    texts = ["0", "2", "1000", "1001", "-1", "1.0", "abc", "", "٣", "9" * 30, str(uuid.uuid4())]
    assert [retry_count_of(request_of(None, text)) for text in texts] == [0, 2, 1000, *[None] * 8]
