"""Images of the folder store over HTTP: as browsers and download tools fetch them."""

import io
import os
import re
import uuid

import pytest

from easel.storage import store
from tests.easel.api.conftest import call

CONTENT = b"0123456789"


def stored(content=CONTENT, *, name="0.png", seconds=600):
    """The path, with its signature, of a new object."""
    key = f"t/outputs/{uuid.uuid4()}/{name}"
    store().put(key, io.BytesIO(content), "image/png")
    return store().signed_url("GET", key, seconds=seconds, base="")


def test_an_image_says_what_it_is():
    answer = call("GET", stored())
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Length"] == "10"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["ETag"]
    assert answer.headers["Last-Modified"].endswith("GMT")


@pytest.mark.parametrize(
    ("name", "content_type"),
    [("0.webp", "image/webp"), ("0.jpeg", "image/jpeg"), ("a.safetensors", "application/octet-stream")],
)
def test_its_type_follows_its_name(name, content_type):
    assert call("GET", stored(name=name)).headers["Content-Type"] == content_type


def test_head_has_the_headers_and_no_body():
    path = stored()
    get, head = call("GET", path), call("HEAD", path)
    assert (head.status_code, head.content) == (200, b"")
    same = ("Content-Type", "Content-Length", "ETag", "Last-Modified", "Accept-Ranges")
    assert [head.headers[name] for name in same] == [get.headers[name] for name in same]


@pytest.mark.parametrize(("seconds", "seconds_max"), [(600, 600), (86_400, 3600)])
def test_it_is_cached_privately_and_no_longer_than_its_url_lives(seconds, seconds_max):
    cached = call("GET", stored(seconds=seconds)).headers["Cache-Control"]
    found = re.fullmatch("private, max-age=([0-9]+), immutable", cached)
    assert found is not None
    assert 0 < int(found[1]) <= seconds_max


@pytest.mark.parametrize(
    ("asked", "part", "content_range"),
    [
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=7-99", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-99", CONTENT, "bytes 0-9/10"),
        ("bytes=0-", CONTENT, "bytes 0-9/10"),
        ("Bytes=9-9", b"9", "bytes 9-9/10"),
    ],
)
def test_a_range_of_it_is_answered_alone(asked, part, content_range):
    answer = call("GET", stored(), headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, part)
    assert (answer.headers["Content-Range"], answer.headers["Content-Length"]) == (content_range, str(len(part)))


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-20", "bytes=99-", "bytes=-0"])
def test_a_range_beyond_its_end_is_refused_with_its_size(asked):
    answer = call("GET", stored(), headers={"Range": asked})
    assert (answer.status_code, answer.content) == (416, b"")
    assert answer.headers["Content-Range"] == "bytes */10"


@pytest.mark.parametrize(
    "asked",
    ["", "bytes=", "bytes=-", "bytes=4-2", "bytes=a-b", "bytes=0-1,4-5", "items=0-1", "0-1", f"bytes={'9' * 5000}-"],
)
def test_several_ranges_and_what_is_none_are_answered_with_all(asked):
    answer = call("GET", stored(), headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert "Content-Range" not in answer.headers


@pytest.mark.parametrize(("asked", "status"), [("", 200), ("bytes=0-", 416), ("bytes=-1", 200)])
def test_an_empty_file_has_no_range(asked, status):
    answer = call("GET", stored(b""), headers={"Range": asked})
    assert (answer.status_code, answer.content) == (status, b"")


def test_a_range_of_a_large_file_is_whole_across_its_chunks():
    content = os.urandom(3 * 2**20)
    answer = call("GET", stored(content), headers={"Range": "bytes=5-2500000"})
    assert answer.content == content[5:2_500_001]


def test_a_client_that_has_it_gets_304():
    path = stored()
    first = call("GET", path)
    for name, value in (
        ("If-None-Match", first.headers["ETag"]),
        ("If-Modified-Since", first.headers["Last-Modified"]),
    ):
        again = call("GET", path, headers={name: value})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert call("GET", path, headers={"If-None-Match": '"another"'}).status_code == 200


def test_the_rest_of_another_file_is_not_joined_to_a_part():
    path = stored()
    etag = call("GET", path).headers["ETag"]
    for if_range, status in ((etag, 206), ('"another"', 200), ("Thu, 01 Jan 1970 00:00:00 GMT", 200)):
        answer = call("GET", path, headers={"Range": "bytes=5-", "If-Range": if_range})
        assert answer.status_code == status


def test_content_that_was_replaced_has_another_etag():
    key = f"t/outputs/{uuid.uuid4()}/0.png"
    tags = set()
    for content in (b"one", b"two!", b"six"):
        store().put(key, io.BytesIO(content), "image/png")
        tags.add(call("GET", store().signed_url("GET", key, seconds=60, base="")).headers["ETag"])
    assert len(tags) == 3


def test_no_condition_opens_what_has_no_signature():
    path = stored()
    etag = call("GET", path).headers["ETag"]
    bare = path.partition("?")[0]
    assert call("GET", bare, headers={"If-None-Match": etag, "Range": "bytes=0-1"}).status_code == 403
    assert call("HEAD", bare).status_code == 403


def test_a_refused_link_has_the_one_error_body():
    path = stored()
    bare = path.partition("?")[0]
    gone = store().signed_url("GET", f"t/outputs/{uuid.uuid4()}/0.png", seconds=60, base="")
    unknown_key = store().signed_url("GET", bare.removeprefix("/storage/"), seconds=60, base="", key_id="0" * 12)
    for method, asked, refusal in (
        ("GET", bare, (403, "link_refused")),
        ("PUT", path, (403, "link_refused")),
        ("GET", unknown_key, (403, "link_refused")),
        ("DELETE", path, (405, "method_not_allowed")),
        ("GET", gone, (404, "not_found")),
    ):
        answer = call(method, asked)
        assert (answer.status_code, answer.json()["error"]["code"]) == refusal, asked
