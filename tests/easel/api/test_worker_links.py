"""The signed URLs that a worker is given: each is good for one object, and until its attempt ends."""

import base64
import json
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from core.redis_client import redis_client
from easel.catalog.adapters import adapter_add_version
from easel.jobs import dispatch, lifecycle, transport
from easel.jobs.models import Job
from easel.storage import store
from inference.contract import QUEUE, AttemptFinished, GenerationTask
from tests.conftest import NOW, worker_beat
from tests.easel.api.conftest import call
from tests.easel.api.test_adapters import weights

HEADERS = {"Content-Type": "image/png", "If-None-Match": "*"}
IMAGE_MAX = 4 * 256 * 256 + 2**16


def given(pool):
    """The path and query of each URL in the pool's next message."""
    message = json.loads(redis_client().lpop(f"{pool.namespace}:{QUEUE}"))
    ((task,), _, _) = json.loads(base64.b64decode(message["body"]))
    read = GenerationTask.from_dict(task)
    urls = [ref.url for ref in read.adapters]
    urls += [url for target in read.outputs for url in (target.url, *target.preview_urls)]
    return [f"{urlsplit(url).path}?{urlsplit(url).query}" for url in urls]


@pytest.fixture
def sent(alice, pool, version, submit):
    """An attempt, and its URLs: of the adapter, the image and its preview."""
    limits = {"bytes_max": 10**6, "rank_max": 8}
    adapter_add_version(project=alice.project, name="style", data=weights(), base=version, **limits, now=NOW)
    submit(alice, adapters=["style"], partial_images=1)
    (attempt,) = dispatch.release(pool=pool, now=NOW, lease_seconds=15)
    transport.send([attempt])
    return attempt, *given(pool)


def put(path, content=b"picture"):
    return call("PUT", path, content=content, headers=HEADERS).status_code


def finish(attempt, pool, outcome):
    report = AttemptFinished(attempt_token=str(attempt.token), worker="w1", gpu_class="cpu", outcome=outcome)
    lifecycle.finish(pool=pool, report=report, now=NOW, attempts_max=3)


ENDS = {
    "failed": lambda attempt, pool: finish(attempt, pool, "failed"),
    "expired": lambda attempt, pool: finish(attempt, pool, "expired"),
    "lost": lambda attempt, pool: lifecycle.lose(token=attempt.token, now=NOW + timedelta(seconds=15), attempts_max=3),
    "to be canceled": lambda attempt, pool: lifecycle.cancel(job=Job.objects.get(id=attempt.job_id), now=NOW),
}


@pytest.mark.parametrize("end", ENDS)
def test_they_end_with_the_attempt(sent, pool, end):
    attempt, adapter, image, preview = sent
    assert [call("GET", adapter).status_code, put(image), put(preview)] == [200, 204, 204]
    ENDS[end](attempt, pool)
    assert [call("GET", adapter).status_code, put(image), put(preview)] == [403, 403, 403]
    assert store().get(urlsplit(image).path.removeprefix("/storage/")) == b"picture"


def test_an_adapters_url_names_its_attempt_and_no_other_is_signed(sent):
    _, adapter, *_ = sent
    assert [call("GET", adapter.replace("attempt=", f"{other}=")).status_code for other in ("x", "Attempt")] == [
        403
    ] * 2
    base, _, rest = adapter.partition("attempt=")
    assert call("GET", f"{base}attempt=00000000-0000-4000-8000-000000000000{rest[36:]}").status_code == 403
    assert call("GET", base + rest[37:]).status_code == 403
    hidden = base.replace("type=", f"type=%0Aattempt+{rest[:36]}") + rest[37:]  # the same lines, but no attempt
    assert call("GET", hidden).status_code == 403


def test_an_upload_is_no_larger_than_its_image_may_be(sent):
    _, _, image, preview = sent
    for path in (image, preview):
        assert put(path, b"x" * (IMAGE_MAX + 1)) == 413
        assert put(path, b"x" * IMAGE_MAX) == 204


@pytest.mark.parametrize("key", ["acme/outputs/image.png", "acme/adapters/a", "{folder}/1.png", "{folder}/0.jpeg"])
def test_nothing_is_uploaded_that_no_attempt_has_to_store(sent, key):
    _, _, image, _ = sent
    folder = urlsplit(image).path.removeprefix("/storage/").rpartition("/")[0]
    url = store().signed_url("PUT", key.format(folder=folder), seconds=60, content_type="image/png", base="")
    assert put(url) == 403


def test_in_a_bucket_they_end_when_they_can_not_be_needed(alice, pool, submit, monkeypatch):
    asked = []

    class Bucket:
        def signed_url(self, method, key, *, seconds, **_):
            asked.append((method, seconds))
            return "https://bucket.test/"

    bucket = Bucket()
    monkeypatch.setattr(transport, "store", lambda: bucket)
    job = submit(alice)
    soon = job.expires_at - timedelta(minutes=5)
    lifecycle.beat(pool=pool, report=worker_beat(), now=soon, lease_seconds=15)
    (attempt,) = dispatch.release(pool=pool, now=soon, lease_seconds=15)
    transport.send([attempt])
    assert asked == [("PUT", 5 * 60 + 120)]
