"""Server-sent events: a job as it goes on, and images as they come."""

import asyncio
import io
import json
import threading
import uuid
from collections.abc import AsyncIterator

import pytest
from django.db import connection
from openai.types import ImageGenCompletedEvent, ImageGenPartialImageEvent
from structlog.testing import capture_logs

from core.threads import THREADS, in_thread
from easel.api import jobs, waiting
from easel.api.access import Access
from easel.asgi import application
from easel.jobs import dispatch, lifecycle
from easel.jobs.models import Job
from easel.jobs.storage_keys import preview_key
from easel.storage import store
from inference.contract import AttemptProgress
from tenants.accounts import tenant_suspend
from tenants.keys import key_revoke
from tests.conftest import NOW, worker_beat
from tests.easel.api.conftest import PNG, ask, call, end_job, without_links

IMAGES = "/v1/images/generations"


def events_of(answer) -> list[tuple[str, dict]]:
    """(event, data) of each event of a stream."""
    assert answer.headers["Content-Type"] == "text/event-stream"
    found = []
    for block in answer.text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


async def named(events) -> AsyncIterator[tuple[str, dict]]:
    """(event, data) of each event of a stream that is still being written, without its signs of life."""
    async for block in events:
        if not block.startswith(b":"):
            fields = dict(line.split(": ", 1) for line in block.decode().strip().splitlines())
            yield fields["event"], json.loads(fields["data"])


async def followed_job(customer, answer: asyncio.Task) -> Job:
    """The customer's newest job, once its client waits for it."""
    async with asyncio.timeout(30):
        while True:
            assert not answer.done(), answer.result()
            job = await in_thread(Job.objects.filter(tenant=customer.tenant).order_by("created_at").last)
            if job and job.id in waiting.followed():
                return job
            await asyncio.sleep(0.01)


def beat(job: Job, *, steps_done: int, previews: tuple[tuple[int, int], ...] = ()) -> None:
    """The worker's beat of a job that it has taken, its previews stored."""
    if not job.attempts.exists():
        dispatch.release(pool=job.pool, now=NOW, lease_seconds=3600)
    token = job.attempts.get().token
    for index, number in previews:
        store().put(preview_key(job, token, index, number), io.BytesIO(PNG), "image/png")
    progress = AttemptProgress(attempt_token=str(token), steps_done=steps_done, steps_total=8, previews=previews)
    lifecycle.beat(pool=job.pool, report=worker_beat(attempts=(progress,)), now=NOW, lease_seconds=3600)


def streamed(customer, path, *acts, method="POST", headers=None, **options):
    """What a streaming call answers while `acts` happen to the customer's newest job, once somebody listens."""

    async def both():
        answer = asyncio.create_task(ask(method, path, secret=customer.secret, headers=headers or {}, **options))
        for act in acts:
            await in_thread(act, await followed_job(customer, answer))
        return await answer

    return asyncio.run(both())


def test_images_are_streamed_with_their_previews_as_openai_does(alice, body):
    answer = streamed(
        alice,
        IMAGES,
        lambda job: beat(job, steps_done=3, previews=((0, 0),)),
        lambda job: beat(job, steps_done=6, previews=((0, 0), (0, 1))),
        lambda job: end_job(str(job.id)),
        json=body(stream=True, partial_images=2),
    )
    *partials, (last, image) = events_of(answer)
    assert [data["partial_image_index"] for _, data in partials] in ([0, 1], [0], [1], [])
    assert last == "image_generation.completed"
    assert ImageGenCompletedEvent.model_validate(image, strict=False).usage.output_tokens == 256
    for kind, partial in partials:
        assert kind == "image_generation.partial_image"
        ImageGenPartialImageEvent.model_validate(partial)


def test_each_image_of_a_stream_has_an_event(alice, body):
    answer = streamed(alice, IMAGES, lambda job: end_job(str(job.id)), json=body(stream=True, n=2))
    assert [(kind, data["image_index"]) for kind, data in events_of(answer)] == [
        ("image_generation.completed", 0),
        ("image_generation.completed", 1),
    ]


def test_a_stream_tells_of_a_failure_as_the_call_without_would(alice, body):
    failing = lambda job: end_job(str(job.id), outcome="failed", error_code="prompt_too_long")  # noqa: E731
    ((kind, data),) = events_of(streamed(alice, IMAGES, failing, json=body(stream=True)))
    assert (kind, data["error"]["code"], data["http_code"]) == ("error", "prompt_too_long", 400)


def test_a_refused_request_is_no_stream(alice, body):
    answer = call("POST", IMAGES, alice, json=body(stream=True, size="17x17"))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "size")


@pytest.mark.parametrize("fields", [{"partial_images": 2}, {"stream": True, "partial_images": 4}])
def test_partial_images_are_up_to_three_of_a_stream(alice, body, fields):
    answer = call("POST", IMAGES, alice, json=body(**fields))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "partial_images")


def test_a_jobs_events_follow_it_to_its_end(alice, create):
    job_id = create(alice)["id"]

    async def followed():
        seen = []
        events = jobs.job_follow(alice.key, uuid.UUID(job_id), access=Access(alice.key), seen="", timeout_seconds=600)
        # What happens next waits for the event before: a stream that is read late leaves out what is over by then.
        happens = iter((lambda job: beat(job, steps_done=3), lambda job: end_job(job_id)))
        async for name, data in named(events):
            seen.append((name, data))
            if name in ("job.queued", "job.running"):
                await in_thread(next(happens), await in_thread(Job.objects.get, pk=job_id))
        return seen

    seen = [(name, data) for name, data in asyncio.run(followed()) if name != "job.dispatched"]
    assert [name for name, _ in seen] == ["job.queued", "job.running", "job.succeeded"]
    assert seen[1][1]["progress"]["steps_done"] == 3
    # The image's link is signed anew by each answer, until a second of its own.
    assert without_links(seen[-1][1]) == without_links(call("GET", f"/v1/jobs/{job_id}", alice).json())


def test_a_client_that_comes_back_gets_what_is_newer_than_it_saw(alice, create):
    job_id = create(alice)["id"]
    end_job(job_id)
    first = call("GET", f"/v1/jobs/{job_id}/events", alice)
    seen = first.text.splitlines()[0].removeprefix("id: ")
    again = call("GET", f"/v1/jobs/{job_id}/events", alice, headers={"Last-Event-ID": seen})
    assert [kind for kind, _ in events_of(first)] == ["job.succeeded"]
    assert again.text == ""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda alice: key_revoke(key_id=alice.key.key_id, now=NOW), "invalid_api_key"),
        (lambda alice: tenant_suspend(tenant=alice.tenant, now=NOW), "account_suspended"),
    ],
    ids=["revoked", "suspended"],
)
def test_a_stream_tells_nothing_more_to_a_key_that_was_revoked_meanwhile(alice, create, end, code):
    job_id = create(alice)["id"]

    def then_it_goes_on(job):
        end(alice)
        end_job(job_id)

    answer = streamed(alice, f"/v1/jobs/{job_id}/events", then_it_goes_on, method="GET")
    *before, (kind, data) = events_of(answer)
    assert (kind, data["error"]["code"]) == ("error", code)
    assert "job.succeeded" not in dict(before)


def test_another_tenants_job_has_no_events(alice, bob, create):
    job_id = create(alice)["id"]
    assert call("GET", f"/v1/jobs/{job_id}/events", bob).status_code == 404
    assert call("GET", f"/v1/jobs/{uuid.uuid4()}/events", alice).status_code == 404


def test_the_queued_job_of_a_client_that_goes_away_is_canceled(alice, body):
    content, left = json.dumps(body(stream=True)).encode(), asyncio.Event()
    headers = {"authorization": f"Bearer {alice.secret}", "content-type": "application/json"}
    headers["content-length"] = str(len(content))
    scope = {
        "type": "http",
        "method": "POST",
        "path": IMAGES,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    messages = [{"type": "http.request", "body": content}]

    async def receive():
        if messages:
            return messages.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        pass

    async def gone():
        call = asyncio.create_task(application(scope, receive, send))
        job = await followed_job(alice, call)
        left.set()
        await call
        return job, waiting.followed()

    job, followed = asyncio.run(gone())
    assert not followed
    job.refresh_from_db()
    assert job.state == "canceled"


def test_a_quiet_stream_says_that_it_is_alive(alice, create, settings_of):
    settings_of(keepalive_seconds=0.05)
    job_id = create(alice)["id"]

    async def second():
        events = jobs.job_follow(alice.key, uuid.UUID(job_id), access=Access(alice.key), seen="", timeout_seconds=10)
        found = [await anext(events), await anext(events)]
        await events.aclose()
        return found

    assert asyncio.run(second())[1].startswith(b":")


def test_the_events_of_a_job_that_takes_too_long_end_with_where_it_can_be_read(alice, create):
    job_id = create(alice)["id"]

    async def all_events():
        return [
            one
            async for one in named(
                jobs.job_follow(alice.key, uuid.UUID(job_id), access=Access(alice.key), seen="", timeout_seconds=0)
            )
        ]

    (first, _), (last, data) = asyncio.run(all_events())
    assert (first, last, data["error"]["code"]) == ("job.queued", "error", "timeout")
    assert data["error"]["message"].endswith(
        f"(position 1 of its queue): read GET http://127.0.0.1:8000/v1/jobs/{job_id}"
    )


def test_hundreds_of_waiting_clients_hold_no_threads(alice, create):
    job_id = uuid.UUID(create(alice)["id"])
    before = threading.active_count()

    async def ended():
        return [one async for one in waiting.ends(job_id, timeout_seconds=60, idle_seconds=60)] == [True]

    async def crowd():
        waiters = [asyncio.create_task(ended()) for _ in range(300)]
        while waiting.followed().get(job_id, 0) < 300:
            await asyncio.sleep(0.01)
        held = threading.active_count()
        await in_thread(end_job, str(job_id))
        return held, await asyncio.gather(*waiters)

    held, all_ended = asyncio.run(crowd())
    assert all(all_ended)
    assert held - before <= THREADS + 1  # those of the pool, and the one that listens


@pytest.mark.parametrize("junk", ["", "no id", "x" * 7999, "\u2028 \U0001f4a3", "{job}"])
def test_a_client_waits_through_notifications_that_anybody_sends(alice, create, junk):
    """Junk, and the id of the job while it goes on: it is looked at, and the notification is not believed."""
    job_id = uuid.UUID(create(alice)["id"])

    async def waits():
        return [one async for one in waiting.ends(job_id, timeout_seconds=60, idle_seconds=60)] == [True]

    async def through_junk():
        call = asyncio.create_task(waits())
        while not waiting.followed():
            await asyncio.sleep(0.01)
        await in_thread(notify_many, junk.format(job=job_id))
        assert not call.done()
        listener = waiting._listener
        await in_thread(end_job, str(job_id))
        return await call and not listener.done()

    assert asyncio.run(through_junk())


def notify_many(payload):
    with connection.cursor() as cursor:
        for channel in waiting.CHANNELS * 20:
            cursor.execute("SELECT pg_notify(%s, %s)", [channel, payload])


def test_a_flood_of_notifications_closes_the_connection_and_the_client_still_gets_its_answer(
    alice, create, monkeypatch
):
    monkeypatch.setattr(waiting, "LISTEN_AGAIN_SECONDS", 0.1)
    job_id, looks = uuid.UUID(create(alice)["id"]), []
    look = waiting._look

    async def counted(*given):
        looks.append(given)
        await look(*given)

    monkeypatch.setattr(waiting, "_look", counted)

    async def waits():
        return [one async for one in waiting.ends(job_id, timeout_seconds=60, idle_seconds=60)] == [True]

    def flood():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify('easel_progress', %s || n) FROM generate_series(1, 1000) n", ["x" * 7000])

    async def flooded():
        call = asyncio.create_task(waits())
        with capture_logs() as logs:
            while not any(line["event"] == "notifications_flooded" for line in logs):
                await in_thread(flood)
        await in_thread(end_job, str(job_id))
        return await call

    assert asyncio.run(flooded())
    assert len(looks) < 20
