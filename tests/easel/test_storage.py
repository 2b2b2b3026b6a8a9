"""Objects in a folder behind the API's signed URLs, and in a bucket of a server that speaks S3."""

import io
import json
import re
import uuid
from hashlib import sha256
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner
from moto.server import ThreadedMotoServer
from PIL import Image

from core.models import AuditEvent
from easel.cli.storage import storage as command
from easel.config import BadSetting
from easel.jobs import dispatch
from easel.jobs.storage_keys import output_key
from easel.jobs.stored_images import PromisedImage, images_confirmed
from easel.storage import FolderStore, S3Store, cors_rules, store
from inference.contract import AttemptFinished, StoredOutput
from tenants.origins import origins_set
from tests.conftest import NOW
from tests.easel.api.conftest import call

BASE = "http://easel.test"
KEY = "acme/outputs/2026-03-01/image.png"
SECRET = "s"


@pytest.fixture(scope="module")
def s3():
    """A server that speaks S3."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(monkeypatch, s3):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    name = f"pictures-{uuid.uuid4().hex}"
    made = S3Store(name, prefix="easel/", endpoint=s3, region="us-east-1")
    made._client.create_bucket(Bucket=name)
    return made


@pytest.fixture(params=["folder", "bucket"])
def any_store(request, tmp_path):
    if request.param == "folder":
        return FolderStore(tmp_path, secret=SECRET)
    return request.getfixturevalue("bucket")


def test_what_was_put_is_got(any_store):
    any_store.put(KEY, io.BytesIO(b"picture"), "image/png")
    assert any_store.get(KEY) == b"picture"


def test_what_is_not_there_can_not_be_got(any_store):
    with pytest.raises(FileNotFoundError):
        any_store.get(KEY)
    with pytest.raises(FileNotFoundError):
        any_store.size_bytes(KEY)


def test_a_signed_upload_to_a_bucket_replaces_nothing(bucket):
    url = bucket.signed_url("PUT", KEY, seconds=60, content_type="image/png", base=BASE)
    assert "if-none-match" in parse_qs(urlsplit(url).query)["X-Amz-SignedHeaders"][0].split(";")


def test_a_deleted_object_is_gone_and_deleting_again_is_no_error(any_store):
    any_store.put(KEY, io.BytesIO(b"picture"), "image/png")
    any_store.delete(KEY)
    any_store.delete(KEY)
    with pytest.raises(FileNotFoundError):
        any_store.get(KEY)


def test_many_objects_are_deleted_at_once_and_one_that_is_gone_is_no_error(any_store, monkeypatch):
    monkeypatch.setattr("easel.storage.S3_DELETES", 2)
    keys = [f"acme/outputs/{number}" for number in range(5)]
    for key in keys:
        any_store.put(key, io.BytesIO(b"picture"), "image/png")
    any_store.delete_all([*keys[:4], "acme/outputs/gone"])
    assert any_store.clear("acme") == 1


def test_a_folder_is_cleared_whole_and_its_neighbours_stay(any_store):
    for key in (KEY, "acme/adapters/a.safetensors", "acme-2/outputs/1", "acme2/acme/1"):
        any_store.put(key, io.BytesIO(b"picture"), "image/png")
    assert [any_store.clear("acme"), any_store.clear("acme")] == [2, 0]
    assert [any_store.get(key) for key in ("acme-2/outputs/1", "acme2/acme/1")] == [b"picture"] * 2


def test_an_object_is_read_piece_by_piece(any_store):
    any_store.put(KEY, io.BytesIO(b"picture"), "image/png")
    with any_store.open(KEY) as file:
        assert [file.read(4), file.read(4), file.read(4)] == [b"pict", b"ure", b""]
    with pytest.raises(FileNotFoundError):
        any_store.open("acme/outputs/none")


def test_a_folder_is_read_down_to_its_last_key_and_no_other_folder(any_store):
    for key in ("t/outputs/2026-03-01/j/a/0.png", "t/outputs/2026-03-01/j/b/0.png", "t/outputs/2026-03-011/j/a/0.png"):
        any_store.put(key, io.BytesIO(b"picture"), "image/png")
    assert sorted(any_store.keys("t/outputs/2026-03-01")) == [
        "t/outputs/2026-03-01/j/a/0.png",
        "t/outputs/2026-03-01/j/b/0.png",
    ]
    assert list(any_store.keys("t/outputs/2026-03-02")) == []


def test_a_bucket_takes_and_gives_objects_by_signed_urls(bucket):
    put = bucket.signed_url("PUT", KEY, seconds=60, content_type="image/png", base=BASE)
    headers = {"Content-Type": "image/png", "If-None-Match": "*"}
    assert httpx.put(put, content=b"picture", headers=headers).status_code == 200
    assert bucket.size_bytes(KEY) == 7
    assert httpx.get(bucket.signed_url("GET", KEY, seconds=60, base=BASE)).content == b"picture"


def test_a_workers_image_is_looked_at_in_every_store(any_store):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 32)).save(buffer, "png")
    content = buffer.getvalue()
    image = PromisedImage(index=0, seed=7, key=KEY, output_format="png", width=64, height=32)
    output = StoredOutput(index=0, seed=1, sha256="", size_bytes=1)
    report = AttemptFinished(attempt_token="", worker="", gpu_class="", outcome="succeeded", outputs=(output,))
    assert images_confirmed(any_store, [image], report).error_code == "image_refused"  # nothing is there
    any_store.put(KEY, io.BytesIO(content + b"x" * 10**5), "image/png")
    assert images_confirmed(any_store, [image], report).error_code == "image_refused"
    with pytest.raises(FileNotFoundError):  # what is too large is deleted
        any_store.get(KEY)
    any_store.put(KEY, io.BytesIO(content), "image/png")
    (found,) = images_confirmed(any_store, [image], report).outputs
    assert found == StoredOutput(index=0, seed=7, sha256=sha256(content).hexdigest(), size_bytes=len(content))


@pytest.mark.parametrize("key", ["a", "../a/b", "a/../b", "/a/b", "a//b", "a/.b", "A/b", "a/b\n", "a/\x00"])
def test_a_key_that_could_leave_the_folder_is_refused(tmp_path, key):
    with pytest.raises(ValueError, match="not a storage key"):
        FolderStore(tmp_path, secret=SECRET).path(key)


def test_an_interrupted_write_leaves_the_old_object_and_no_litter(tmp_path):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise OSError("cable")

    folder = FolderStore(tmp_path, secret=SECRET)
    folder.put(KEY, io.BytesIO(b"old"), "image/png")
    with pytest.raises(OSError, match="cable"):
        folder.put(KEY, Broken(), "image/png")
    assert folder.get(KEY) == b"old"
    assert len(list(folder.path(KEY).parent.iterdir())) == 1


def signed(method, *, seconds=60, content_type="image/png", key=KEY):
    url = store().signed_url(method, key, seconds=seconds, content_type=content_type, base=BASE)
    return url.removeprefix(BASE)


def put(path, content=b"picture", content_type="image/png"):
    return call("PUT", path, content=content, headers={"Content-Type": content_type})


@pytest.fixture
def key(alice, pool, submit):
    """Where a live attempt has to store its image."""
    job = submit(alice)
    (attempt,) = dispatch.release(pool=pool, now=NOW, lease_seconds=15)
    return output_key(job, attempt.token, 0)


def test_an_upload_keeps_what_lies_there_and_may_be_repeated(key):
    path = signed("PUT", key=key)
    assert put(path).status_code == 204
    assert put(path).status_code == 204
    assert put(path, content=b"another picture").status_code == 412
    assert put(path).status_code == 204


def test_a_signed_url_of_the_folder_puts_and_gets(key):
    assert put(signed("PUT", key=key)).status_code == 204
    got = call("GET", signed("GET", key=key))
    assert (got.content, got.headers["Content-Type"], got.headers["Content-Length"]) == (b"picture", "image/png", "7")


def test_a_signed_url_answers_a_head_without_a_body():
    store().put(KEY, io.BytesIO(b"picture"), "image/png")
    got = call("HEAD", signed("GET"))
    assert (got.status_code, got.content, got.headers["Content-Length"]) == (200, b"", "7")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.partition("?")[0],
        lambda path: re.sub("signature=.", "signature=x", path),
        lambda path: re.sub(r"expires=\d+", "expires=99999999999", path),
        lambda path: path.replace("image.png", "other.png"),
        lambda path: path.replace("acme", "basalt"),
        lambda path: signed("PUT"),
        lambda path: signed("GET", seconds=-1),
        lambda path: re.sub(r"expires=\d+", "expires=x", path),
        lambda path: re.sub(r"expires=\d+", "expires=" + 5000 * "9", path),
        lambda path: re.sub("signature=.*", "signature=%C3%A9", path),
    ],
    ids=[
        "unsigned",
        "signature",
        "longer",
        "another key",
        "another tenant",
        "another method",
        "expired",
        "no number",
        "no date",
        "no ASCII",
    ],
)
def test_a_url_that_was_not_signed_like_this_is_refused(spoil):
    store().put(KEY, io.BytesIO(b"picture"), "image/png")
    assert call("GET", spoil(signed("GET"))).status_code == 403


def test_an_upload_of_another_type_than_was_signed_is_refused():
    assert put(signed("PUT"), content_type="text/html").status_code == 403


def test_a_signed_url_of_what_is_gone_is_404():
    assert call("GET", signed("GET", key="acme/outputs/never-made.png")).status_code == 404


@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH"])
def test_no_other_method_touches_the_folder(method):
    store().put(KEY, io.BytesIO(b"picture"), "image/png")
    assert call(method, signed("PUT")).status_code == 405
    assert call("GET", signed("GET")).status_code == 200


def test_an_upload_over_the_limit_is_refused(key):
    assert put(signed("PUT", key=key), content=b"x" * (64 * 2**20 + 1)).status_code == 413
    assert call("GET", signed("GET", key=key)).status_code == 404


def test_the_store_is_chosen_by_its_url(settings_of, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    settings_of(storage_url="s3://pictures/easel?endpoint=http://s3.test:9000&region=eu-1")
    url = store.__wrapped__().signed_url("GET", KEY, seconds=60, base=BASE)
    assert (urlsplit(url).netloc, urlsplit(url).path) == ("s3.test:9000", f"/pictures/easel/{KEY}")


@pytest.mark.parametrize("url", ["", "/var/storage", "http://example.com", "ftp://x"])
def test_another_kind_of_store_is_refused(settings_of, url):
    settings_of(storage_url=url)
    with pytest.raises(BadSetting, match="EASEL_STORAGE_URL"):
        store.__wrapped__()


# --- the CORS rules of a bucket


@pytest.fixture
def cors(bucket, monkeypatch, settings_of):
    """Runs `easel storage cors` on this test's bucket, whose rules are `cors.rules()`."""
    endpoint = bucket._client.meta.endpoint_url

    def run(*options, origins=frozenset({"https://platform.example"}), name=bucket.bucket):
        url = f"s3://{name}/easel?endpoint={endpoint}&region=us-east-1"
        settings_of(storage_url=url, cors_origins=frozenset(origins))
        monkeypatch.setattr("easel.storage.store", store.__wrapped__)
        return CliRunner().invoke(command, ["cors", *options])

    run.rules = lambda: bucket._client.get_bucket_cors(Bucket=bucket.bucket)["CORSRules"]
    return run


def test_the_rules_of_a_bucket_are_printed_and_set_from_the_origins_of_platform_and_tenants(cors, bucket, alice):
    origins_set(tenant=alice.tenant, origins=["https://alice.example"])
    printed = cors()
    (rule,) = json.loads(printed.stdout)["CORSRules"]
    assert {"https://platform.example", "https://alice.example"} <= set(rule["AllowedOrigins"])
    assert (rule["AllowedMethods"], "ETag" in rule["ExposeHeaders"]) == (["GET", "HEAD"], True)
    with pytest.raises(ClientError, match="NoSuchCORSConfiguration"):  # nothing is set without --apply
        cors.rules()
    for _ in range(2):
        applied = cors("--apply")
        assert applied.exit_code == 0, applied.output
        (found,) = cors.rules()
        assert sorted(found["AllowedOrigins"]) == sorted(rule["AllowedOrigins"])
    assert AuditEvent.objects.filter(action="storage.cors", subject=bucket.bucket).count() == 2


def test_every_origin_is_one_rule(cors):
    assert cors("--apply", origins={"*", "https://a.example"}).exit_code == 0
    assert cors.rules()[0]["AllowedOrigins"] == ["*"]


def test_without_an_origin_the_bucket_has_no_rules_left(cors, bucket):
    for origins in ({"https://a.example"}, (), ()):
        bucket.cors_set(cors_rules(origins))
    with pytest.raises(ClientError, match="NoSuchCORSConfiguration"):
        cors.rules()


def test_a_bucket_that_refuses_its_rules_is_named_and_nothing_is_recorded(cors):
    name = f"no-{uuid.uuid4().hex}"
    refused = cors("--apply", name=name).exception
    assert (type(refused).__name__, refused.code) == ("BucketRefused", "bucket_refused")
    assert name in str(refused)
    assert not AuditEvent.objects.filter(subject=name).exists()


def test_a_folder_has_no_rules_to_set():
    assert CliRunner().invoke(command, ["cors", "--apply"]).exception.code == "store_is_folder"
