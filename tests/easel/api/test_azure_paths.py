"""Azure's paths: other names of the paths under /v1, of which a deployment also names the model."""

import base64
import uuid

import pytest

from easel.jobs.models import Job
from easel.serving.aliases import alias_set
from tests.conftest import NOW
from tests.easel.api.conftest import PNG, call
from tests.easel.api.test_images import generated

VERSION = "api-version=2025-04-01-preview"


def deployed(name, call="images/generations"):
    return f"/openai/deployments/{name}/{call}?{VERSION}"


def model_of(customer):
    return Job.objects.get(tenant=customer.tenant).model_version.model


@pytest.mark.parametrize("path", ["/openai/images/generations", "/openai/v1/images/generations"])
def test_azures_paths_without_a_deployment_are_the_call_itself(alice, body, path):
    answer = generated(alice, body(), path=f"{path}?{VERSION}")
    assert (answer.status_code, base64.b64decode(answer.json()["data"][0]["b64_json"])) == (200, PNG)


@pytest.mark.parametrize("model", [..., None, "dall-e-9"], ids=["left out", "null", "another"])
def test_a_deployment_decides_the_model_whatever_the_body_says(alice, body, version, model):
    answer = generated(
        alice, {**body(model=...), **({} if model is ... else {"model": model})}, path=deployed(version.model.name)
    )
    assert (answer.status_code, model_of(alice)) == (200, version.model)


@pytest.mark.parametrize("separator", ["/", "%2F"])
def test_a_deployment_may_be_an_alias_with_a_slash_and_has_its_defaults(alice, body, version, separator):
    name = f"hub-{uuid.uuid4().hex[:8]}/turbo"
    terms = {"ignored": (), "is_lenient": False, "defaults": {"response_format": "url"}, "now": NOW}
    alias_set(name=name, model=version.model, tenant=alice.tenant, **terms)
    answer = generated(alice, body(model=...), path=deployed(name.replace("/", separator)))
    assert (answer.status_code, model_of(alice)) == (200, version.model)
    assert list(answer.json()["data"][0]) == ["url"]


def test_a_deployment_that_is_not_there_is_an_unknown_model(alice, body):
    answer = call("POST", deployed("midjourney"), alice, json=body())
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "midjourney" in answer.json()["error"]["message"]
    assert not Job.objects.filter(tenant=alice.tenant).exists()


@pytest.mark.parametrize(("name", "param"), [("x" * 101, "model"), ("a%00b", "model")], ids=["too long", "with a NUL"])
def test_a_deployment_with_a_name_that_no_model_can_have_is_refused(alice, body, name, param):
    answer = call("POST", deployed(name), alice, json=body())
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("content", [[], "text", 7])
def test_a_body_that_is_no_object_is_refused_as_everywhere(alice, version, content):
    answers = [
        call("POST", path, alice, json=content) for path in (deployed(version.model.name), "/v1/images/generations")
    ]
    assert [answer.status_code for answer in answers] == [400, 400]
    assert answers[0].json() == answers[1].json()


def test_an_idempotency_key_is_of_a_deployment(alice, body, version, settings_of):
    settings_of(request_wait_seconds=0)
    key = {"Idempotency-Key": "one"}
    paths = (deployed(version.model.name), deployed("midjourney"))
    answers = [call("POST", path, alice, json=body(), headers=key) for path in (paths[0], *paths)]
    assert [answer.status_code for answer in answers] == [504, 504, 422]
    assert answers[1].headers["Idempotent-Replayed"] == "true"


def test_models_and_jobs_are_at_azures_paths_too(alice, version, create):
    job = create(alice)
    for prefix in ("/openai", "/openai/v1"):
        listed = call("GET", f"{prefix}/models?{VERSION}", alice).json()["data"]
        assert version.model.name in [model["id"] for model in listed]
        assert call("GET", f"{prefix}/models/{version.model.name}?{VERSION}", alice).json()["object"] == "model"
        assert call("GET", f"{prefix}/jobs/{job['id']}?{VERSION}", alice).json()["id"] == job["id"]


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        (deployed("z", "chat/completions"), "images/generations alone"),
        ("/openai/deployments", "/openai/models"),
        ("/openai/chat/completions", "/v1/openapi.json"),
        ("/openai/v1/responses", "/v1/openapi.json"),
    ],
)
def test_what_is_not_there_is_404_by_the_path_that_was_asked_for(alice, path, hint):
    answer = call("POST", path, alice, json={})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (404, "not_found")
    assert f"POST {path.partition('?')[0]}" in error["message"]
    assert hint in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "methods"),
    [
        ("GET", deployed("z"), "POST"),
        ("DELETE", "/openai/images/generations", "POST"),
        ("PUT", "/openai/v1/jobs", "GET or POST"),
        ("PUT", "/v1/jobs", "GET or POST"),
    ],
)
def test_a_method_is_refused_by_the_path_that_was_asked_for(alice, method, path, methods):
    answer = call(method, path, alice)
    asked = path.partition("?")[0]
    assert answer.status_code == 405
    assert answer.json()["error"]["message"] == f"{asked} has no method {method}: send {methods}"


def test_an_edit_at_a_deployment_is_refused_as_everywhere(alice):
    answer = call("POST", deployed("gpt-image-1", "images/edits"), alice, files={"image": ("a.png", bytes(5_000_000))})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unsupported_endpoint")


def test_a_page_may_ask_before_it_calls_azures_paths():
    answer = call("OPTIONS", deployed("any"))
    assert (answer.status_code, answer.headers["Allow"]) == (204, "POST, OPTIONS")


def test_a_path_that_only_begins_like_azures_is_another():
    assert call("GET", "/openaix/models").status_code == 404
