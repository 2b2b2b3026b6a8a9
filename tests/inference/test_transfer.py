"""Adapters are downloaded and pictures uploaded over HTTP, from a storage that may be away, slow or wrong."""

import hashlib
import io
import threading

import httpx
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from inference.adapters import AdapterTable
from inference.contract import AdapterRef, UploadTarget
from inference.errors import AdapterRejected, TransferError
from inference.worker import transfer
from inference.worker.adapter_store import AdapterStore
from inference.worker.outputs import encode_image, store_output


@pytest.fixture(autouse=True)
def short_retries(monkeypatch):
    monkeypatch.setattr(transfer, "_RETRY_SECONDS_MAX", 1.0)
    monkeypatch.setattr(transfer, "_DELAY_SECONDS_FIRST", 0.01)


@pytest.fixture
def client():
    with httpx.Client() as client:
        yield client


@pytest.fixture
def picture() -> Image.Image:
    return Image.linear_gradient("L").convert("RGB")


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_a_picture_is_stored_as_the_format_asked_for(storage, client, new_task, picture, output_format):
    target = UploadTarget(index=3, seed=9, url=storage.url("/out?signature=s"))
    task = new_task(output_format=output_format, output_compression=80)
    stored = store_output(client, task, target, target.url, picture)
    data = storage.objects["/out?signature=s"]
    assert Image.open(io.BytesIO(data)).format == output_format.upper()
    assert storage.content_types["/out?signature=s"] == f"image/{output_format}"
    assert (stored.index, stored.seed, stored.size_bytes) == (3, 9, len(data))
    assert stored.sha256 == hashlib.sha256(data).hexdigest()


def test_compression_is_quality_where_the_format_has_one(picture):
    for lossy in ("jpeg", "webp"):
        assert len(encode_image(picture, lossy, 20)) < len(encode_image(picture, lossy, 95))
    assert encode_image(picture, "png", 0) == encode_image(picture, "png", 100)


def test_an_upload_outlasts_a_storage_that_is_away_for_a_moment(storage, client):
    storage.failures = [503, 500, 429]
    transfer.upload(client, storage.url("/x"), b"data", content_type="image/png")
    assert storage.objects["/x"] == b"data"
    assert len(storage.requests) == 4


@pytest.mark.parametrize("status", [400, 403, 404])
def test_a_refused_upload_is_not_repeated_and_its_url_not_revealed(storage, client, status):
    storage.failures = [status]
    with pytest.raises(TransferError) as refused:
        transfer.upload(client, storage.url("/secret"), b"data", content_type="image/png")
    assert (refused.value.code, refused.value.retryable) == ("storage_refused", True)
    assert "secret" not in str(refused.value)
    assert len(storage.requests) == 1


def test_an_upload_never_takes_the_place_of_another(storage, client):
    storage.objects["/x"] = b"stored by the worker that was first"
    with pytest.raises(TransferError):
        transfer.upload(client, storage.url("/x"), b"data", content_type="image/png")
    assert storage.objects["/x"] == b"stored by the worker that was first"


def test_retries_end(client):
    with pytest.raises(TransferError) as lost:
        transfer.upload(client, "http://127.0.0.1:1/x", b"data", content_type="image/png")
    assert lost.value.code == "storage_unavailable"


class Shelf:
    """An adapter store on an empty folder, whose parser records hashes instead of reading tensors."""

    def __init__(self, folder, client, storage, **limits) -> None:
        self.folder, self.storage, self.parsed = folder, storage, []
        limits = {"disk_bytes_max": 10**9, "memory_bytes_max": 10**9, **limits}
        self.store = AdapterStore(folder=folder, client=client, parse=self._parse, **limits)

    def _parse(self, path, sha256) -> AdapterTable:
        self.parsed.append(sha256)
        return SizedTable(sha256, path.stat().st_size)

    def ref(self, name: str, data: bytes, **fields) -> AdapterRef:
        self.storage.objects[f"/{name}"] = data
        known = {"name": name, "sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
        return AdapterRef(**{**known, "scale": 1.0, "url": self.storage.url(f"/{name}"), **fields})


class SizedTable(AdapterTable):
    def __init__(self, sha256: str, size_bytes: int) -> None:
        super().__init__(sha256, {"layer": (torch.zeros(1, 1), torch.zeros(1, 1))})
        self._size = size_bytes

    @property
    def size_bytes(self) -> int:
        return self._size


@pytest.fixture
def shelf(tmp_path, client, storage):
    return lambda **limits: Shelf(tmp_path / "adapters", client, storage, **limits)


def test_an_adapter_is_fetched_once_and_cached_on_disk_for_the_next_process(shelf, storage):
    first = shelf()
    ref = first.ref("a", save({}))
    assert first.store.get(ref) is first.store.get(ref)
    second = shelf()
    assert second.store.get(ref).sha256 == ref.sha256
    assert storage.requests == ["GET /a"]


def test_callers_at_the_same_time_share_one_fetch(shelf, storage):
    shelf = shelf()
    ref = shelf.ref("a", b"x" * 100_000)
    tables = []
    threads = [threading.Thread(target=lambda: tables.append(shelf.store.get(ref))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tables) == 8
    assert len(set(map(id, tables))) == 1
    assert storage.requests == ["GET /a"]


def test_a_fetch_outlasts_a_storage_that_is_away_for_a_moment(shelf, storage):
    shelf = shelf()
    ref = shelf.ref("a", b"data")
    storage.failures = [500, 503]
    assert shelf.store.get(ref).sha256 == ref.sha256


@pytest.mark.parametrize("body", [b"dat", b"data and more", b"atad"])
def test_a_body_that_is_not_what_was_announced_is_never_stored(shelf, body):
    shelf = shelf()
    ref = shelf.ref("a", b"data")
    shelf.storage.objects["/a"] = body
    with pytest.raises(TransferError, match="another size or hash"):
        shelf.store.get(ref)
    assert list(shelf.folder.iterdir()) == []
    assert shelf.parsed == []


def test_a_missing_adapter_is_refused_at_once(shelf, storage):
    shelf = shelf()
    ref = shelf.ref("a", b"data")
    del storage.objects["/a"]
    with pytest.raises(TransferError, match="404"):
        shelf.store.get(ref)
    assert len(storage.requests) == 1


def test_a_name_that_is_no_hash_never_becomes_a_path(shelf):
    shelf = shelf()
    with pytest.raises(AdapterRejected, match="hash"):
        shelf.store.get(shelf.ref("a", b"data", sha256="../../../etc/passwd"))


def test_the_least_recently_used_leaves_first(shelf, storage):
    shelf = shelf(memory_bytes_max=250, disk_bytes_max=250)
    a, b, c = (shelf.ref(name, name.encode() * 100) for name in "abc")
    for ref in (a, b, a, c):
        shelf.store.get(ref)
    shelf.store.get(a)
    assert shelf.parsed == [a.sha256, b.sha256, c.sha256]
    shelf.store.get(b)
    assert storage.requests.count("GET /b") == 2
    assert len(list(shelf.folder.iterdir())) == 2
