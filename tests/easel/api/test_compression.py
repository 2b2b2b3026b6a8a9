"""What is compressed for clients that ask, and what is left as it is."""

import base64
import gzip
import json
import os

import httpx
import pytest

from easel.api.compression import accepts_gzip, shrinks
from tests.easel.api.conftest import call, end_job
from tests.easel.api.test_images import generated

GZIP = {"Accept-Encoding": "gzip"}
PLAIN = {"Accept-Encoding": "identity"}


def packed(answer: httpx.Response) -> bool:
    """Whether an answer came compressed; httpx decompresses it."""
    return answer.headers.get("Content-Encoding") == "gzip"


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("br, gzip;q=0.5", True),
        ("gzip, deflate, br", True),
        ("*", True),
        ("", False),
        ("identity", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("x-gzip-like", False),
    ],
)
def test_gzip_is_used_where_it_is_accepted(header, accepted):
    assert accepts_gzip(header) is accepted


def test_a_list_is_compressed_for_those_who_ask(alice, create):
    for _ in range(3):
        create(alice)
    asked, plain = (call("GET", "/v1/jobs", alice, headers=headers) for headers in (GZIP, PLAIN))
    assert (packed(asked), packed(plain)) == (True, False)
    assert asked.json() == plain.json()
    assert asked.num_bytes_downloaded < plain.num_bytes_downloaded / 2
    for answer in (asked, plain):
        assert "accept-encoding" in answer.headers["Vary"].lower()


def test_the_document_is_compressed():
    answer = call("GET", "/v1/openapi.json", headers=GZIP)
    assert packed(answer)
    assert answer.num_bytes_downloaded < len(answer.content) / 4


def test_a_small_answer_is_left_as_it_is(alice):
    assert not packed(call("GET", "/v1/jobs", alice, headers=GZIP))
    assert not packed(call("GET", "/v1/jobs", headers=GZIP))


@pytest.mark.usefixtures("one_day")
@pytest.mark.parametrize("path", ["/v1/exports/costs", "/v1/exports/focus", "/v1/exports/events"])
def test_an_export_is_compressed_while_it_is_read(alice, create, path):
    end_job(create(alice)["id"])
    asked, plain = (call("GET", path, alice, headers=headers) for headers in (GZIP, PLAIN))
    assert (packed(asked), packed(plain)) == (True, False)
    assert asked.text == plain.text != ""


def test_an_export_that_is_packed_already_is_left_as_it_is(alice, create):
    end_job(create(alice)["id"])
    answer = call("GET", "/v1/exports/focus?format=parquet", alice, headers=GZIP)
    assert (answer.status_code, packed(answer), answer.content[:4]) == (200, False, b"PAR1")


def test_an_image_in_base64_is_left_as_it_is(alice, body, monkeypatch):
    monkeypatch.setattr("tests.easel.api.conftest.PNG", os.urandom(20_000))  # which doesn't shrink, as a PNG doesn't
    answer = generated(alice, body())
    assert len(answer.content) > 20_000
    assert not packed(answer)


def test_events_are_left_as_they_are(alice, create):
    job = create(alice, prompt="red " * 500)
    call("POST", f"/v1/jobs/{job['id']}/cancel", alice)
    answer = call("GET", f"/v1/jobs/{job['id']}/events", alice, headers=GZIP)
    assert (answer.headers["Content-Type"], packed(answer)) == ("text/event-stream", False)
    assert len(answer.content) > 1024


def test_pages_of_the_portal_are_left_as_they_are():
    answer = call("GET", "/admin/login/", headers=GZIP)
    assert len(answer.content) > 1024
    assert not packed(answer)


@pytest.mark.parametrize(
    ("content", "does"),
    [
        (json.dumps([{"id": number, "object": "job"} for number in range(1000)]).encode(), True),
        (b'{"data": [{"b64_json": "' + base64.b64encode(os.urandom(5000)), False),
        (os.urandom(5000), False),
        (gzip.compress(os.urandom(5000)), False),
    ],
)
def test_a_sample_tells_what_shrinks(content, does):
    assert shrinks(content) is does
