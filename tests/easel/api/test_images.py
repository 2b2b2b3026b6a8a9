"""`POST /v1/images/generations`: a call that waits for its images."""

import asyncio
import base64
import json
from datetime import timedelta

import httpx
import pytest
from django.db import OperationalError
from openai import AsyncOpenAI

from billing.ledger.accounts import balances_by_kind
from core import clock
from core.threads import THREADS, in_thread
from easel.api import waiting
from easel.asgi import application
from easel.catalog.models import Worker
from easel.jobs.models import Job
from easel.processes import scheduler
from easel.storage import store
from tests.easel.api.conftest import PNG, ask, call, end_job

PATH = "/v1/images/generations"


async def job_of(customer):
    """The customer's newest job, once there is one."""
    while not (job := await in_thread(Job.objects.filter(tenant=customer.tenant).order_by("created_at").last)):
        await asyncio.sleep(0.01)
    return job


def generated(customer, content, *, path=PATH, **end):
    """The answer to an images call whose job ends meanwhile."""

    async def both():
        answer = asyncio.create_task(ask("POST", path, secret=customer.secret, json=content))
        job = await job_of(customer)
        await in_thread(end_job, str(job.id), **end)
        return await answer

    return asyncio.run(both())


def test_the_images_come_back_as_base64_with_what_they_cost(alice, body):
    received = generated(alice, body(n=2), gpu_seconds=2.0)
    answer = received.json()
    assert [base64.b64decode(image["b64_json"]) for image in answer["data"]] == [PNG, PNG]
    assert answer["usage"]["output_tokens"] == 2 * 256
    # 0.5 image units at 0.002, 2 seconds of a CPU at 0.0001, one request at 0.0005
    assert '"cost":0.0017,' in received.text
    assert answer["usage"]["cost_details"]["amount_micros"] == 1700
    assert (received.headers["Easel-Cost"], received.headers["Easel-Cost-Currency"]) == ("0.0017", "USD")
    assert (answer["output_format"], answer["size"]) == ("png", "256x256")


def test_the_images_come_back_as_urls_that_need_no_key(alice, body):
    answer = generated(alice, body(response_format="url")).json()
    path = answer["data"][0]["url"].removeprefix("http://127.0.0.1:8000")
    fetched = call("GET", path)
    assert (fetched.status_code, fetched.content, fetched.headers["Content-Type"]) == (200, PNG, "image/png")


def test_a_failure_of_ours_is_a_server_error(alice, body):
    answer = generated(alice, body(), outcome="failed", error_code="out_of_memory", retryable=True)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "out_of_memory")


def test_a_failure_of_the_callers_is_a_bad_request(alice, body):
    answer = generated(alice, body(), outcome="failed", error_code="prompt_too_long")
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


def test_a_canceled_job_answers_its_waiting_client(alice, body):
    async def both():
        answer = asyncio.create_task(ask("POST", PATH, secret=alice.secret, json=body()))
        job = await job_of(alice)
        await ask("POST", f"/v1/jobs/{job.id}/cancel", secret=alice.secret)
        return await answer

    answer = asyncio.run(both())
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "job_canceled")


def test_a_job_past_its_deadline_answers_its_waiting_client_and_costs_nothing(alice, body):
    async def both():
        answer = asyncio.create_task(ask("POST", PATH, secret=alice.secret, json=body(expires_in_seconds=1)))
        job = await job_of(alice)
        assert await in_thread(scheduler.expire_jobs, job.expires_at, tenants=[alice.tenant])
        return await answer

    before = balances_by_kind(alice.tenant)
    answer = asyncio.run(both())
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "job_expired")
    assert balances_by_kind(alice.tenant) == before


def test_a_job_that_takes_too_long_can_be_asked_for_later(alice, body, settings_of):
    settings_of(request_wait_seconds=0)
    answer = call("POST", PATH, alice, json=body())
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
    url = f"http://127.0.0.1:8000/v1/jobs/{Job.objects.get(tenant=alice.tenant).id}"
    assert answer.json()["error"]["message"].endswith(f"read GET {url}")
    assert (answer.headers["Location"], answer.headers["Retry-After"]) == (url, "5")  # nobody knows how long it takes
    assert call("GET", url.removeprefix("http://127.0.0.1:8000"), alice).json()["status"] == "queued"


@pytest.mark.parametrize("stream", [False, True])
def test_a_wait_that_took_too_long_says_where_the_job_is(alice, body, create, pool, settings_of, stream):
    end_job(create(alice)["id"], gpu_seconds=2.0)  # so long takes a job of this size, as the pool measured
    Worker.objects.filter(pool=pool).update(concurrency=1, beat_at=clock.now() + timedelta(hours=1))
    for _ in range(2):
        create(alice)
    settings_of(request_wait_seconds=0)
    answer = call("POST", PATH, alice, json=body(stream=stream))
    if stream:
        error = json.loads(answer.text.rpartition("data: ")[2])
        assert (error["type"], error["http_code"]) == ("error", 504)
    else:
        error = answer.json()
        assert answer.headers["Retry-After"] == "6"
    assert "(position 3 of its queue, about 6 s to go)" in error["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_wait_that_ends_while_the_database_is_away_still_names_its_job(alice, body, monkeypatch, settings_of, stream):
    def away(job, *, now):
        raise OperationalError("the server closed the connection")

    monkeypatch.setattr(waiting, "queue_place", away)
    settings_of(request_wait_seconds=0)
    answer = call("POST", PATH, alice, json=body(stream=stream))
    job_id = Job.objects.get(tenant=alice.tenant).id
    assert f"the job {job_id} is not finished yet: read GET http" in answer.text


def test_an_accepted_job_says_where_it_can_be_read(alice, create, body):
    answer = call("POST", "/v1/jobs", alice, json=body())
    assert answer.headers["Location"] == answer.json()["urls"]["get"]


def test_a_database_that_blinks_does_not_end_the_wait(alice, body, monkeypatch):
    looks, is_final = [], waiting._is_final

    def blinking(job_id):
        looks.append(job_id)
        if len(looks) == 1:
            raise OperationalError("the server closed the connection")
        return is_final(job_id)

    monkeypatch.setattr(waiting, "_is_final", blinking)
    assert generated(alice, body()).status_code == 200


@pytest.mark.parametrize(("error", "status"), [(FileNotFoundError("image"), 500), (OperationalError("away"), 503)])
def test_an_error_after_a_job_was_made_is_not_tried_again_by_a_client(alice, body, monkeypatch, error, status):
    def broken(key):
        raise error

    monkeypatch.setattr(store(), "get", broken)
    answer = generated(alice, body())
    assert (answer.status_code, answer.headers["x-should-retry"]) == (status, "false")


def test_openais_client_understands_the_answer(alice, body):
    async def both():
        transport = httpx.ASGITransport(app=application)
        async with httpx.AsyncClient(transport=transport) as http:
            client = AsyncOpenAI(base_url="http://easel.test/v1", api_key=alice.secret, http_client=http)
            images = asyncio.create_task(client.images.generate(**body(n=2), extra_body={"seed": 7}))
            job = await job_of(alice)
            await in_thread(end_job, str(job.id))
            return job, await images

    job, images = asyncio.run(both())
    assert [base64.b64decode(image.b64_json) for image in images.data] == [PNG, PNG]
    assert (images.usage.output_tokens, job.seed) == (2 * 256, 7)


def test_the_answer_says_the_quality_and_the_tier(alice, body):
    answer = generated(alice, body(quality="high")).json()
    assert (answer["quality"], answer["tier"]) == ("high", "hd")


def test_waiting_calls_hold_no_thread(alice, body):
    async def more_than_there_are_threads():
        calls = (ask("POST", PATH, secret=alice.secret, json=body()) for _ in range(2 * THREADS))
        waiting = [asyncio.create_task(call) for call in calls]
        async with asyncio.timeout(20):
            while await in_thread(Job.objects.filter(tenant=alice.tenant).count) < len(waiting):
                await asyncio.sleep(0.01)
            served = await ask("GET", "/v1/models", secret=alice.secret)
        for job in await in_thread(lambda: list(Job.objects.filter(tenant=alice.tenant))):
            await ask("POST", f"/v1/jobs/{job.id}/cancel", secret=alice.secret)
        return served, await asyncio.gather(*waiting)

    served, ended = asyncio.run(more_than_there_are_threads())
    assert served.status_code == 200
    assert {answer.status_code for answer in ended} == {409}


def test_a_repeated_call_waits_for_the_same_job(alice, body):
    async def both():
        headers = {"Idempotency-Key": "key-1"}
        calls = [
            asyncio.create_task(ask("POST", PATH, secret=alice.secret, json=body(), headers=headers)) for _ in range(2)
        ]
        job = await job_of(alice)
        await in_thread(end_job, str(job.id))
        return await asyncio.gather(*calls)

    first, second = asyncio.run(both())
    assert first.json()["job_id"] == second.json()["job_id"]
    assert Job.objects.filter(tenant=alice.tenant).count() == 1
