"""Every answer carries an `X-Request-Id`, which the logs have too, and a job shows the one of its request."""

import asyncio

import httpx
import pytest
from django.conf import settings

from easel.api import jobs as api_jobs
from easel.asgi import application
from easel.jobs.deletion import job_delete
from easel.jobs.models import Job
from tests.conftest import NOW
from tests.easel.api.conftest import call, end_job


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nowhere"),
        ("GET", "/v1/nowhere"),
        ("GET", "/v1/jobs"),  # without a key
        ("PATCH", "/v1/jobs"),
        ("OPTIONS", "/v1/images/generations"),
        ("GET", "/healthz/live"),
        ("GET", "/metrics"),
        ("GET", "/v1/openapi.json"),
        ("GET", "/admin/"),
        ("GET", "/admin/nowhere/"),
        ("GET", "/static/nowhere.css"),
        ("GET", "/storage/nowhere.png"),
    ],
)
def test_every_answer_has_a_request_id_of_its_own(method, path):
    first, second = (call(method, path).headers["X-Request-Id"] for _ in range(2))
    assert first != second


def test_a_query_string_that_is_no_text_is_answered_like_any_malformed_request():
    async def unreadable(scope, receive, send):
        await application({**scope, "query_string": b"status=\xff"}, receive, send)  # httpx would escape it

    async def ask():
        transport = httpx.ASGITransport(app=unreadable)
        async with httpx.AsyncClient(transport=transport, base_url="http://easel.test") as client:
            return await client.get("/v1/jobs")

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert answer.headers["X-Request-Id"]


def test_the_request_id_that_a_client_sends_is_the_answers():
    for path in ("/v1/jobs", "/nowhere"):
        assert call("GET", path, headers={"X-Request-Id": "req-of-mine-7"}).headers["X-Request-Id"] == "req-of-mine-7"


def test_a_request_that_is_too_large_or_breaks_the_server_has_one_too(alice, monkeypatch):
    large = call("POST", "/v1/jobs", alice, content=b"x" * (settings.EASEL.body_bytes_max + 1))
    monkeypatch.setattr(api_jobs, "take", lambda *_, **__: 1 / 0)
    broken = call("POST", "/v1/jobs", alice, json={"prompt": "a"})
    assert (large.status_code, broken.status_code) == (413, 500)
    assert large.headers["X-Request-Id"] != broken.headers["X-Request-Id"]


def test_a_job_shows_the_id_of_the_request_that_made_it_until_it_is_deleted(alice, body):
    made = call("POST", "/v1/jobs", alice, json=body(), headers={"X-Request-Id": "req-of-mine-8"}).json()
    assert made["request_id"] == "req-of-mine-8"
    end_job(made["id"])
    job = Job.objects.get(id=made["id"])
    assert call("GET", f"/v1/jobs/{job.id}", alice).json()["request_id"] == "req-of-mine-8"
    job_delete(job=job, actor="alice", now=NOW)
    assert call("GET", f"/v1/jobs/{job.id}", alice).json()["request_id"] is None
