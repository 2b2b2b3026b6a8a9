"""A caller who loses access while it is answered gets the refusal, and no byte of an image after it."""

import asyncio
import contextlib
import json
from collections.abc import Callable

import httpx
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from core.threads import in_thread
from easel.api import access
from easel.api.access import Access, BrokenOff, GuardedAnswers
from easel.api.batch_results import blocks_streamed
from easel.jobs.models import Job
from tenants.accounts import tenant_suspend
from tenants.keys import key_revoke
from tenants.models import ApiKey
from tests.conftest import NOW, Customer
from tests.easel.api.conftest import ask, end_job
from tests.easel.api.serving import port_of, served
from tests.easel.api.test_streaming import IMAGES, events_of, followed_job


def revoked(customer: Customer) -> None:
    key_revoke(key_id=customer.key.key_id, now=NOW)


def suspended(customer: Customer) -> None:
    tenant_suspend(tenant=customer.tenant, now=NOW)


def without_scope(customer: Customer) -> None:
    ApiKey.objects.filter(pk=customer.key.pk).update(scopes=["usage"])


WAYS = [
    (revoked, 401, "invalid_api_key"),
    (suspended, 403, "account_suspended"),
    (without_scope, 403, "insufficient_scope"),
]
Lose = Callable[[Customer], None]


async def answer_after(lose: Lose, customer: Customer, *, ends: bool, method: str, path: str, **options):
    """The answer to a call whose caller loses access, and whose job ends if `ends`, once somebody waits for it."""

    def happen(job: Job) -> None:
        lose(customer)
        if ends:
            end_job(str(job.id))

    answer = asyncio.create_task(ask(method, path, secret=customer.secret, **options))
    await in_thread(happen, await followed_job(customer, answer))
    async with asyncio.timeout(30):
        return await answer


@pytest.mark.parametrize("ends", [False, True], ids=["goes on", "ends"])
@pytest.mark.parametrize(("lose", "status", "code"), WAYS)
def test_every_wait_ends_with_the_refusal(alice, body, settings_of, lose, status, code, ends):
    settings_of(keepalive_seconds=30)
    options = {"ends": ends, "method": "POST", "path": IMAGES, "json": body()}
    answer = asyncio.run(answer_after(lose, alice, **options))
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    # The job is the tenant's: it goes on, and is charged.
    assert Job.objects.get(tenant=alice.tenant).state == ("succeeded" if ends else "queued")


@pytest.mark.parametrize("ends", [False, True], ids=["goes on", "ends"])
@pytest.mark.parametrize(("lose", "status", "code"), WAYS)
def test_every_stream_ends_with_the_refusal(alice, body, create, lose, status, code, ends):
    job_id = create(alice)["id"]
    for options in (
        {"method": "GET", "path": f"/v1/jobs/{job_id}/events"},
        {"method": "POST", "path": IMAGES, "json": body(stream=True, partial_images=2)},
    ):
        answer = asyncio.run(answer_after(lose, alice, ends=ends, **options))
        *before, (kind, data) = events_of(answer)
        assert (kind, data["error"]["code"], data["http_code"]) == ("error", code, status)
        assert not any("completed" in kind or "succeeded" in kind for kind, _ in before)
        ApiKey.objects.filter(pk=alice.key.pk).update(revoked_at=None, scopes=alice.key.scopes)
        type(alice.tenant).objects.filter(pk=alice.tenant.pk).update(suspended_at=None)


def test_a_wait_whose_answer_has_begun_is_broken_off_with_the_refusal(alice, body, settings_of):
    settings_of(keepalive_seconds=0.05)

    async def broken_off():
        headers, received = {"Authorization": f"Bearer {alice.secret}"}, b""
        async with contextlib.AsyncExitStack() as stack:
            port = port_of(await stack.enter_async_context(served()))
            client = await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}"))
            asked = client.stream("POST", IMAGES, headers=headers, json=body())
            async with asked as answer:
                with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
                    async for part in answer.aiter_bytes():
                        if not received:
                            await in_thread(revoked, alice)
                        received += part
        return answer.status_code, received

    status, received = asyncio.run(broken_off())
    assert (status, received[:1], json.loads(received)["error"]["code"]) == (200, b" ", "invalid_api_key")


def test_a_wait_ends_though_the_notification_was_lost(alice, body, monkeypatch):
    monkeypatch.setattr(access, "changed", lambda: None)
    monkeypatch.setattr("easel.api.waiting.access_changed", lambda: None)
    monkeypatch.setattr(access, "RECHECK_SECONDS", 0.1)
    answer = asyncio.run(answer_after(revoked, alice, ends=False, method="POST", path=IMAGES, json=body()))
    assert answer.status_code == 401


def test_a_file_ends_at_the_block_before_which_the_key_was_revoked(alice):
    given = iter([b"one", b"two", b"three"])

    async def sent():
        found = []
        with pytest.raises(BrokenOff, match="invalid_api_key"):
            async for block in blocks_streamed(given, access=Access(alice.key)):
                found.append(block)
                await in_thread(revoked, alice)
        return found

    assert asyncio.run(sent()) == [b"one"]


@pytest.mark.parametrize("pieces", [1, 5])
def test_an_answer_ends_at_the_next_piece_however_it_is_made(alice, pieces):
    """Whatever an application sends, in one piece or more, leaves in parts, and access is looked at before each."""
    mine, whole = Access(alice.key), b"x" * (10 * access.CHUNK_BYTES)
    sent = []

    async def application(scope, receive, send):
        size = len(whole) // pieces
        for start in range(0, len(whole), size):
            more = start + size < len(whole)
            await send({"type": "http.response.body", "body": whole[start : start + size], "more_body": more})

    async def send(message):
        sent.append(message["body"])
        if len(sent) == 3:  # the client is slow
            await in_thread(revoked, alice)
            async with asyncio.timeout(10):
                while mine.error is None:
                    await asyncio.sleep(0.01)

    async def served():
        with pytest.raises(BrokenOff, match="invalid_api_key"):
            await GuardedAnswers(application)({access.ACCESS: mine}, None, send)

    asyncio.run(served())
    assert b"".join(sent) == whole[: 3 * access.CHUNK_BYTES]


def test_thousands_of_open_answers_cost_one_query_at_a_look(alice):
    watched = [Access(alice.key) for _ in range(5000)]
    with CaptureQueriesContext(connection) as queries:
        assert access._losses(watched) == []
    assert len(queries) == 1
    revoked(alice)
    assert len(access._losses(watched)) == 5000
