"""The OpenAPI document describes what the API does. `described.check` holds every answer of these tests to it."""

import asyncio
import json
import re

import pytest
from openapi_spec_validator import validate

from easel.api.urls import urlpatterns
from easel.batches.errors import LINE_ERRORS
from easel.serving.rollouts import rollout_start
from easel.webhooks.models import Event
from tests.conftest import NOW
from tests.easel.api.conftest import ask, call, end_job
from tests.easel.api.described import check, validator
from tests.easel.api.test_adapters import weights
from tests.easel.api.test_images import generated


@pytest.fixture(scope="module")
def document():
    answer = call("GET", "/v1/openapi.json")
    assert answer.status_code == 200
    return answer.json()


@pytest.fixture(scope="module")
def operations(document):
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_the_document_is_valid_openapi(document):
    assert document["openapi"].startswith("3.1")
    validate(document)


def test_every_route_of_the_api_is_in_it(document):
    routes = {("/v1/" + str(route.pattern)).rstrip("/") for route in urlpatterns}
    assert set(document["paths"]) == {re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route) for route in routes}


def test_it_names_this_server(document):
    assert [server["url"] for server in document["servers"]] == ["http://127.0.0.1:8000"]


def test_every_operation_has_a_summary_a_text_and_a_tag(document, operations):
    tags = {tag["name"] for tag in document["tags"]}
    for name, operation in operations.items():
        assert re.fullmatch(r"[A-Z].{8,99}[^.]", operation["summary"]), f"{name}: {operation['summary']}"
        assert operation["description"].startswith(operation["summary"][:20]), name
        assert set(operation["tags"]) <= tags, name
    assert len({operation["operationId"] for operation in operations.values()}) == len(operations)


def test_a_call_says_what_it_takes_and_how_to_authenticate(document, operations):
    images = operations["POST /v1/images/generations"]
    schema = images["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[-1]
    fields = document["components"]["schemas"][schema]["properties"]
    assert {"prompt", "n", "size", "seed", "adapters", "response_format"} <= set(fields)
    assert document["security"] == [{"apiKey": []}, {"apiKeyHeader": []}]
    assert images["x-scopes"] == ["generate"]
    assert {"$ref": "#/components/parameters/Idempotency-Key"} in images["parameters"]
    assert operations["GET /v1/errors"]["security"] == []


def test_answers_share_their_parts(document, operations):
    schemas = document["components"]["schemas"]
    assert {"Job", "JobList", "Image", "Images", "Error", "Money", "JobUsage"} <= set(schemas)
    found = {
        response["content"]["application/json"]["schema"]["$ref"]
        for operation in operations.values()
        for status, response in operation["responses"].items()
        if int(status) >= 400
    }
    assert found == {"#/components/schemas/Error"}


def test_the_rows_of_every_list_are_described(document):
    lists = [part["properties"]["data"] for part in document["components"]["schemas"].values() if _is_list(part)]
    assert len(lists) > 10
    assert all(data["items"] for data in lists)


def _is_list(part):
    return part.get("properties", {}).get("data", {}).get("type") == "array"


def test_answers_may_get_new_fields(document):
    closed = {name for name, schema in document["components"]["schemas"].items() if "additionalProperties" in schema}
    assert all(name.endswith("Input") for name in closed)


def test_no_field_of_a_body_has_a_default_that_a_generated_client_would_send(document):
    bodies = {name: schema for name, schema in document["components"]["schemas"].items() if name.endswith("Input")}
    assert not [name for name, body in bodies.items() for field in body["properties"].values() if "default" in field]
    assert bodies["JobInput"]["properties"]["cache"]["description"].endswith("By default `true`.")


def test_the_examples_of_requests_are_ones_that_the_api_takes(operations):
    bodies = [
        (content["schema"], example["value"])
        for operation in operations.values()
        for content in operation.get("requestBody", {}).get("content", {}).values()
        for example in content.get("examples", {}).values()
    ]
    assert len(bodies) >= 6
    for schema, value in bodies:
        validator(json.dumps(schema)).validate(value)


def test_every_call_that_needs_a_body_refuses_one_that_is_absent(alice, operations):
    taking = [name for name, operation in operations.items() if operation.get("requestBody", {}).get("required")]
    assert {"POST /v1/adapters", "POST /v1/files", "POST /v1/jobs", "POST /v1/webhooks"} <= set(taking)
    for name in taking:
        method, path = name.split(" ", 1)
        answer = call(method, path.replace("{", "").replace("}", ""), alice)
        assert answer.status_code in (400, 404), f"{name}: {answer.text}"


def test_every_code_of_a_call_is_listed_by_its_status(operations):
    listed = {row["code"]: row["status"] for row in call("GET", "/v1/errors").json()["data"]}
    found = {
        code: int(status)
        for operation in operations.values()
        for status, response in operation["responses"].items()
        for code in response.get("x-error-codes", ())
    }
    assert found.items() <= listed.items()
    # The only errors without an operation are those of a path that has none, or not this method, of a connection, of
    # stored objects, and those of lines.
    of_others = {
        "link_refused",
        "object_exists",
        "not_found",
        "method_not_allowed",
        "head_too_large",
        "too_many_connections",
    }
    of_lines = {error.code for error in LINE_ERRORS}
    assert set(listed) - set(found) == (of_others | of_lines) - set(found)


def test_files_have_a_media_type_that_client_generators_know(operations):
    types = operations["GET /v1/exports/focus"]["responses"]["200"]["content"]
    assert list(types) == ["application/octet-stream", "text/csv", "application/vnd.apache.parquet"]
    assert next(iter(operations["GET /v1/exports/events"]["responses"]["200"]["content"])) == "application/octet-stream"


def test_the_events_of_a_stream_are_described(document, operations):
    stream = operations["POST /v1/images/generations"]["responses"]["200"]["content"]["text/event-stream"]
    assert set(stream["x-events"]) == {"image_generation.partial_image", "image_generation.completed", "error"}
    events = operations["GET /v1/jobs/{job_id}/events"]["responses"]["200"]["content"]["text/event-stream"]["x-events"]
    assert events["job.succeeded"] == {"$ref": "#/components/schemas/Job"}


def test_every_event_of_a_webhook_is_described(document):
    assert set(document["webhooks"]) == set(Event.values)


def test_an_undeclared_field_would_be_noticed(alice, create):
    answer = call("GET", f"/v1/jobs/{create(alice)['id']}", alice)
    schema = '{"$ref": "#/components/schemas/Job"}'
    assert validator(schema).is_valid(answer.json())
    assert not validator(schema).is_valid({**answer.json(), "surprise": 1})
    nested = {**answer.json(), "progress": {**answer.json()["progress"], "surprise": 1}}
    assert not validator(schema).is_valid(nested)


def test_an_undeclared_header_would_be_noticed(alice):
    answer = asyncio.run(ask("GET", "/v1/models", secret=alice.secret))
    answer.headers["X-Surprise"] = "1"
    with pytest.raises(AssertionError, match="x-surprise"):
        check(answer)


# These calls have no test of their own elsewhere; `call` compares their answers.
def test_real_experiments_feedback_and_rollouts_are_as_described(alice, version, second, plan, create):
    rollout_start(candidate=second, plan=plan, now=NOW)
    arms = [{"name": "a", "weight": 50}, {"name": "b", "weight": 50, "steps": 2, "version": 2}]
    body = {"name": "test", "model": version.model.name, "arms": arms}
    assert call("POST", "/v1/experiments", alice, json=body).status_code == 201
    job = create(alice)
    end_job(job["id"])
    assert call("POST", f"/v1/jobs/{job['id']}/feedback", alice, json={"score": 0.5}).status_code == 201
    for path in ("/v1/experiments", "/v1/experiments/test", "/v1/rollouts", "/v1/jobs"):
        assert call("GET", path, alice).status_code == 200


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/{job_id}", "/v1/models", "/v1/models/{name}", "/v1/quota"])
def test_real_answers_are_as_described(alice, version, create, path):
    done, failed, _ = (create(alice, metadata={"a": "b"})["id"] for _ in range(3))
    end_job(done)
    end_job(failed, outcome="failed", error_code="out_of_memory", retryable=True)
    assert call("GET", path.format(job_id=done, name=version.model.name), alice).status_code == 200


def test_a_real_upload_is_as_described(alice, version):
    fields = {"name": "outline", "model": version.model.name}
    assert call("POST", "/v1/adapters", alice, data=fields, files={"file": weights()}).status_code == 201
    assert call("GET", "/v1/adapters", alice).json()["data"]


@pytest.mark.parametrize("response_format", ["b64_json", "url"])
def test_real_images_are_as_described(alice, body, response_format):
    assert generated(alice, body(response_format=response_format)).status_code == 200
