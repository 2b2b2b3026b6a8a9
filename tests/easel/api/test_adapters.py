import pickle

import numpy as np
import pytest
from safetensors.numpy import save

from easel.catalog.checkpoint import zimage_targets
from easel.catalog.models import Adapter
from tests.conftest import TRANSFORMER
from tests.easel.api.conftest import call

MODULE = "layers.0.attention.to_q"
HEIGHT, WIDTH = zimage_targets(TRANSFORMER)[MODULE]


def weights(rank=4, width=WIDTH, **extra):
    a, b = np.ones((rank, width), np.float32), np.ones((HEIGHT, rank), np.float32)
    return save({f"transformer.{MODULE}.lora_A.weight": a, f"transformer.{MODULE}.lora_B.weight": b, **extra})


@pytest.fixture
def upload(version):
    def make(customer, data=None, *, name="outline", **fields):
        return call(
            "POST",
            "/v1/adapters",
            customer,
            data={"name": name, "model": version.model.name, **fields},
            files={"file": ("lora.safetensors", weights() if data is None else data)},
        )

    return make


def test_an_upload_is_listed_with_its_versions(alice, upload, version):
    assert upload(alice).status_code == 201
    assert upload(alice, weights(rank=8)).status_code == 201
    (adapter,) = call("GET", "/v1/adapters", alice).json()["data"]
    assert (adapter["name"], adapter["status"], adapter["model"]) == ("outline", "ready", version.model.name)
    assert [(v["version"], v["rank"], v["modules"]) for v in adapter["versions"]] == [(1, 4, 1), (2, 8, 1)]


def test_an_adapter_can_be_used_once_it_is_uploaded(alice, upload, create):
    upload(alice)
    job = create(alice, adapters=[{"name": "outline", "scale": 0.5}])
    assert job["adapters"] == [{"name": "outline", "version": 1, "scale": 0.5}]


def test_a_retired_adapter_is_refused_in_new_requests(alice, upload, body):
    upload(alice)
    assert call("DELETE", "/v1/adapters/outline", alice).json()["status"] == "retired"
    answer = call("POST", "/v1/jobs", alice, json=body(adapters=[{"name": "outline"}]))
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "adapter_retired")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_another_tenants_adapter_is_404(alice, bob, upload, method):
    upload(alice)
    answer = call(method, "/v1/adapters/outline", bob)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "adapter_not_found")
    assert call("GET", "/v1/adapters", bob).json()["data"] == []


def test_another_tenants_adapter_can_not_be_generated_with(alice, bob, upload, body):
    upload(alice)
    answer = call("POST", "/v1/jobs", bob, json=body(adapters=[{"name": "outline"}]))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "adapter_not_found")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "adapter_file_invalid"),
        (pickle.dumps({"a": 1}), "adapter_is_pickle"),
        (weights()[:-10], "adapter_file_invalid"),
        (save({"unet.down.lora_A.weight": np.ones((4, 4), np.float32)}), "adapter_wrong_base"),
        (weights(**{"transformer.mystery.weight": np.ones(1, np.float32)}), "adapter_keys_not_understood"),
        (weights(width=WIDTH + 1), "adapter_wrong_shape"),
        (weights(**{f"transformer.{MODULE}.alpha": np.ones(2, np.float32)}), "adapter_wrong_shape"),
        (weights(rank=129), "adapter_rank_too_large"),
    ],
)
def test_a_file_that_can_not_be_served_is_refused_and_not_stored(alice, upload, data, code):
    answer = upload(alice, data)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert not Adapter.objects.filter(tenant=alice.tenant).exists()


def test_a_file_over_the_size_limit_is_refused(alice, upload, settings_of):
    settings_of(adapter_bytes_max=1000)
    answer = upload(alice, weights(rank=100))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "adapter_too_large")


def test_a_form_over_the_size_limit_is_refused_before_it_is_read(alice, upload, settings_of):
    settings_of(adapter_bytes_max=1000)
    answer = upload(alice, b"x" * 2**18)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("name", ["", "Outline", "a/b", "../etc", "a" * 41, "é", "a\x00b"])
def test_a_name_that_is_no_dns_label_is_refused(alice, upload, name):
    answer = upload(alice, name=name)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "name")


def test_an_unknown_field_of_the_form_is_named(alice, upload):
    answer = upload(alice, scale="1")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown_field")


@pytest.mark.parametrize(
    ("data", "files", "code", "param"),
    [
        ({}, {"file": b"x"}, "missing_required_parameter", "name"),
        ({"name": "outline"}, {"model": (None, b"x")}, "missing_required_parameter", "file"),
        ({"name": "outline"}, {"file": (None, b"x")}, "invalid_value", "file"),
        ({}, {"name": b"x", "file": b"x"}, "invalid_value", "name"),
        ({"name": "outline", "model": "no-such-model"}, {"file": b"x"}, "model_not_found", "model"),
    ],
    ids=["no name", "no file", "a text for a file", "a file for a name", "no such model"],
)
def test_a_form_that_is_incomplete_is_refused(alice, data, files, code, param):
    error = call("POST", "/v1/adapters", alice, data=data, files=files).json()["error"]
    assert (error["code"], error["param"]) == (code, param)


def test_a_form_without_a_boundary_is_refused(alice):
    answer = call("POST", "/v1/adapters", alice, content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


def test_an_upload_as_json_is_refused(alice):
    answer = call("POST", "/v1/adapters", alice, json={"name": "outline"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")
