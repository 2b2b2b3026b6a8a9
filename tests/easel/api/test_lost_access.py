"""A caller who loses access while it is answered gets the refusal, and no byte of an image after it."""

import asyncio
import contextlib
import contextvars
import json
import time
from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_network

import httpx
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from core import clock
from core.threads import in_thread
from easel.api import access
from easel.api.access import Access, BrokenOff, GuardedAnswers
from easel.api.batch_results import blocks_streamed
from easel.jobs.models import Job
from tenants.accounts import tenant_image_urls, tenant_suspend
from tenants.keys import key_issue, key_revoke, keys_read
from tenants.models import ApiKey
from tests.conftest import NOW, PEPPER, Customer
from tests.easel.api.conftest import PNG, ask, call, end_job
from tests.easel.api.serving import port_of, served
from tests.easel.api.test_streaming import IMAGES, events_of, followed_job


def revoked(customer: Customer) -> None:
    key_revoke(key_id=customer.key.key_id, now=NOW)


def suspended(customer: Customer) -> None:
    tenant_suspend(tenant=customer.tenant, now=NOW)


def without_scope(customer: Customer) -> None:
    ApiKey.objects.filter(pk=customer.key.pk).update(scopes=["usage"])


def expired(customer: Customer) -> None:
    ApiKey.objects.filter(pk=customer.key.pk).update(expires_at=clock.now())


def elsewhere(customer: Customer) -> None:
    ApiKey.objects.filter(pk=customer.key.pk).update(addresses=["192.0.2.0/24"])


PIECE_BYTES = 65_536  # as docs/security.md promises
WAYS = [
    (revoked, 401, "invalid_api_key"),
    (suspended, 403, "account_suspended"),
    (without_scope, 403, "insufficient_scope"),
    (expired, 401, "key_expired"),
    (elsewhere, 403, "address_not_allowed"),
]


def given_back(customer: Customer) -> None:
    ApiKey.objects.filter(pk=customer.key.pk).update(
        revoked_at=None, scopes=customer.key.scopes, expires_at=None, addresses=[]
    )
    type(customer.tenant).objects.filter(pk=customer.tenant.pk).update(suspended_at=None)


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
        given_back(alice)


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


def test_what_ends_for_one_tenant_goes_on_for_the_others(alice, bob, body):
    """The first to wait begins the watch, which looks at everybody's keys."""

    async def both():
        first = asyncio.create_task(ask("POST", IMAGES, secret=alice.secret, json=body()))
        await followed_job(alice, first)
        other = asyncio.create_task(ask("POST", IMAGES, secret=bob.secret, json=body()))
        job = await followed_job(bob, other)
        await in_thread(revoked, alice)
        refused = await first
        await in_thread(end_job, str(job.id))
        return refused.status_code, (await other).status_code

    assert asyncio.run(both()) == (401, 200)


def test_the_watch_is_no_part_of_the_request_that_began_it(alice, monkeypatch):
    request, seen = contextvars.ContextVar[str]("request", default="none"), []
    monkeypatch.setattr(access, "keys_read", lambda pks: seen.append(request.get()) or keys_read(pks))

    async def watched():
        request.set("alice's")
        mine = Access(alice.key)
        mine.open()
        async with asyncio.timeout(10):
            while not seen:
                await asyncio.sleep(0.01)
        mine.close()

    asyncio.run(watched())
    assert set(seen) == {"none"}


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
    mine, whole = Access(alice.key), b"x" * (10 * PIECE_BYTES)
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
    assert b"".join(sent) == whole[: 3 * PIECE_BYTES]


def test_thousands_of_open_answers_cost_one_query_at_a_look(alice):
    watched = [Access(alice.key) for _ in range(5000)]
    with CaptureQueriesContext(connection) as queries:
        assert access._losses(watched, clock.now()) == []
    assert len(queries) == 1
    revoked(alice)
    assert len(access._losses(watched, clock.now())) == 5000


def url_of(customer: Customer, job_id: str) -> str:
    (image,) = call("GET", f"/v1/jobs/{job_id}", customer).json()["images"]
    return image["url"].removeprefix("http://127.0.0.1:8000")


def test_the_url_of_an_image_ends_with_the_access_of_its_key(alice, create):
    job_id = create(alice)["id"]
    end_job(job_id)
    url = url_of(alice, job_id)
    for lose, _, _ in WAYS:
        assert call("GET", url).content == PNG
        lose(alice)
        answer = call("GET", url)
        assert (answer.status_code, PNG in answer.content) == (403, False), lose
        given_back(alice)


def test_the_url_of_an_image_is_its_keys_alone(alice, bob, create):
    """A URL of a revoked key is not made one of a live key, or of none."""
    job_id = create(alice)["id"]
    end_job(job_id)
    url = url_of(alice, job_id)
    other, _ = key_issue(project=alice.project, pepper=PEPPER, now=NOW)
    revoked(alice)
    mine = f"key={alice.key.key_id}"
    # Without a key, but with a type that has the bytes of the key in what is signed.
    disguised = url.replace("type=", f"type=%0Akey+{alice.key.key_id}").replace(f"&{mine}", "")
    assert call("GET", disguised).status_code == 403
    for theirs in ("", "key=", f"key={other.key_id}", f"key={bob.key.key_id}", f"{mine}&key={other.key_id}"):
        assert call("GET", url.replace(mine, theirs)).status_code == 403, theirs


def test_urls_of_images_are_valid_for_minutes_as_the_tenants_policy_says(alice, create):
    job_id = create(alice)["id"]
    end_job(job_id)

    def seconds() -> int:
        now = int(time.time())
        expires = int(httpx.URL(url_of(alice, job_id)).params["expires"])
        return expires - now

    assert 15 * 60 <= seconds() < 16 * 60
    assert tenant_image_urls(tenant=alice.tenant, minutes=2)
    assert 2 * 60 <= seconds() < 3 * 60
    # No longer than the key itself, also where a bucket answers.
    ApiKey.objects.filter(pk=alice.key.pk).update(expires_at=clock.now() + timedelta(seconds=30))
    assert seconds() <= 30


@pytest.mark.parametrize(
    ("trusted", "forwarded", "is_allowed"),
    [
        ([], "192.0.2.7", False),  # nobody is trusted by default
        (["127.0.0.0/8"], "192.0.2.7", True),
        (["127.0.0.0/8"], "192.0.2.7, 198.51.100.1", False),  # the caller's own claim stands before what the proxy adds
        (["127.0.0.0/8", "198.51.100.0/24"], "192.0.2.7, 198.51.100.1", True),  # through two proxies
        (["127.0.0.0/8"], "unknown", False),
        (["127.0.0.0/8"], None, False),
    ],
)
def test_only_a_trusted_proxy_says_where_a_call_comes_from(alice, settings_of, trusted, forwarded, is_allowed):
    settings_of(trusted_proxies=tuple(map(ip_network, trusted)))
    ApiKey.objects.filter(pk=alice.key.pk).update(addresses=["192.0.2.7"])

    async def asked():
        headers = {"Authorization": f"Bearer {alice.secret}"} | ({"X-Forwarded-For": forwarded} if forwarded else {})
        async with served() as server, httpx.AsyncClient(headers=headers) as client:
            return await client.get(f"http://127.0.0.1:{port_of(server)}/v1/models")

    assert asyncio.run(asked()).status_code == (200 if is_allowed else 403)
