import re

import pytest
from drf_spectacular.drainage import GENERATOR_STATS
from openapi_schema_validator import OAS30Validator
from openapi_spec_validator import validate

from easel.serving.rollouts import rollout_start
from easel.urls import urlpatterns
from tests.conftest import NOW
from tests.easel.api.conftest import call, end_job
from tests.easel.api.test_adapters import weights
from tests.easel.api.test_images import generated


@pytest.fixture(scope="module")
def document():
    answer = call("GET", "/v1/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def answer_schema(document, method, path, status):
    return document["paths"][path][method]["responses"][str(status)]["content"]["application/json"]["schema"]


def test_the_document_is_valid_openapi(document):
    validate(document)


def test_generating_it_warns_of_nothing():
    GENERATOR_STATS.reset()
    call("GET", "/v1/openapi.json")
    assert not GENERATOR_STATS


def test_every_route_of_the_api_is_in_it(document):
    routes = {"/v1/" + str(route.pattern) for route in urlpatterns[0].url_patterns} - {"/v1/openapi.json"}
    assert set(document["paths"]) == {re.sub(r"<\w+:(\w+)>", r"{\1}", route) for route in routes}


def test_real_experiments_feedback_and_rollouts_are_as_described(alice, version, second, plan, create, document):
    rollout_start(candidate=second, plan=plan, now=NOW)
    arms = [{"name": "a", "weight": 50}, {"name": "b", "weight": 50, "steps": 2, "version": 2}]
    body = {"name": "test", "model": version.model.name, "arms": arms}
    started = call("POST", "/v1/experiments", alice, json=body)
    OAS30Validator(answer_schema(document, "post", "/v1/experiments", 201)).validate(started.json())
    job = create(alice)
    end_job(job["id"])
    given = call("POST", f"/v1/jobs/{job['id']}/feedback", alice, json={"score": 0.5})
    OAS30Validator(answer_schema(document, "post", "/v1/jobs/{job_id}/feedback", 201)).validate(given.json())
    for path in ("/v1/experiments", "/v1/experiments/{name}", "/v1/rollouts", "/v1/jobs"):
        answer = call("GET", path.format(name="test"), alice)
        OAS30Validator(answer_schema(document, "get", path, 200)).validate(answer.json())


def test_a_call_says_what_it_takes_and_how_to_authenticate(document):
    images = document["paths"]["/v1/images/generations"]["post"]
    schema = images["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[-1]
    fields = document["components"]["schemas"][schema]["properties"]
    assert {"prompt", "n", "size", "seed", "adapters", "response_format"} <= set(fields)
    assert images["security"] == [{"apiKey": []}]


@pytest.mark.parametrize(
    "path", ["/v1/jobs", "/v1/jobs/{job_id}", "/v1/models", "/v1/models/{name}", "/v1/usage", "/v1/quota"]
)
def test_real_answers_are_as_described(alice, version, create, document, path):
    done, failed, _ = (create(alice, metadata={"a": "b"})["id"] for _ in range(3))
    end_job(done)
    end_job(failed, outcome="failed", error_code="out_of_memory", retryable=True)
    answer = call("GET", path.format(job_id=done, name=version.model.name), alice)
    OAS30Validator(answer_schema(document, "get", path, 200)).validate(answer.json())


def test_a_real_upload_is_as_described(alice, version, document):
    fields = {"name": "outline", "model": version.model.name}
    answer = call("POST", "/v1/adapters", alice, data=fields, files={"file": weights()})
    OAS30Validator(answer_schema(document, "post", "/v1/adapters", 201)).validate(answer.json())
    listed = call("GET", "/v1/adapters", alice)
    OAS30Validator(answer_schema(document, "get", "/v1/adapters", 200)).validate(listed.json())


@pytest.mark.parametrize("response_format", ["b64_json", "url"])
def test_real_images_are_as_described(alice, body, document, response_format):
    answer = generated(alice, body(response_format=response_format))
    OAS30Validator(answer_schema(document, "post", "/v1/images/generations", 200)).validate(answer.json())


def test_a_real_refusal_is_as_described(document):
    answer = call("GET", "/v1/jobs")
    OAS30Validator(answer_schema(document, "get", "/v1/jobs", "default")).validate(answer.json())
