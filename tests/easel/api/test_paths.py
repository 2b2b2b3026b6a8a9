"""How paths, methods and credentials may be spelled."""

import uuid

import pytest

from tests.easel.api.conftest import call
from tests.easel.api.test_lists import lists


def test_a_slash_at_the_end_of_a_path_changes_nothing(alice, version):
    with_slash, without = (call("GET", path, alice) for path in ("/v1/models/", "/v1/models"))
    assert (with_slash.status_code, with_slash.json()) == (200, without.json())


def test_a_post_to_a_path_with_a_slash_keeps_its_body(alice, body):
    answer = call("POST", "/v1/jobs/", alice, json=body(prompt="a red circle"))
    assert (answer.status_code, answer.json()["prompt"]) == (202, "a red circle")


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/v1/jobs", "GET, POST, HEAD, OPTIONS"),
        ("/v1/jobs/", "GET, POST, HEAD, OPTIONS"),
        ("/v1/images/generations", "POST, OPTIONS"),
        (f"/v1/jobs/{uuid.UUID(int=7)}", "GET, DELETE, HEAD, OPTIONS"),
        (f"/v1/jobs/{uuid.UUID(int=7)}/events", "GET, HEAD, OPTIONS"),
        ("/v1/openapi.json", "GET, HEAD, OPTIONS"),
        ("/storage/t/outputs/0.png", "GET, HEAD, PUT, OPTIONS"),
    ],
)
def test_options_tells_the_methods_of_a_path_without_a_key_and_nothing_else(path, allow):
    answer = call("OPTIONS", path)
    assert (answer.status_code, answer.headers["Allow"], answer.content) == (204, allow, b"")


def test_options_of_what_is_not_there_is_404():
    assert call("OPTIONS", "/v1/nothing").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/v1/models", "GET, HEAD, OPTIONS"),
        ("GET", "/v1/images/generations", "POST, OPTIONS"),
        ("BREW", "/v1/jobs", "GET, POST, HEAD, OPTIONS"),
        ("POST", "/v1/openapi.json", "GET, HEAD, OPTIONS"),
        ("POST", "/storage/t/outputs/0.png", "GET, HEAD, PUT, OPTIONS"),
    ],
)
def test_a_method_that_a_path_does_not_take_is_refused_with_those_that_it_does(alice, method, path, allow):
    answer = call(method, path, alice)
    assert (answer.status_code, answer.headers["Allow"]) == (405, allow)


def test_head_answers_as_get_does_without_its_body(alice, create):
    create(alice)
    paths = [path for path, _ in lists(call("GET", "/v1/openapi.json").json()) if "{" not in path]
    paths += ["/v1/costs", "/v1/balance", "/v1/openapi.json", "/healthz/live"]
    assert "/v1/jobs" in paths
    for path in paths:
        get, head = call("GET", path, alice), call("HEAD", path, alice)
        assert (head.status_code, head.headers["Content-Type"]) == (200, get.headers["Content-Type"]), path


@pytest.mark.parametrize("path", ["/v1/exports/costs", "/v1/exports/events", "/v1/jobs/{id}/events"])
def test_head_begins_no_stream(alice, create, path):
    job = create(alice)  # its events end with the job, which nobody works on
    answer = call("HEAD", path.format(**job), alice)
    assert (answer.status_code, answer.content) == (200, b"")


def test_what_is_not_there_does_not_tell_what_is(alice):
    answer = call("GET", "/v1/nothing", alice)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert "urlpatterns" not in answer.text


def test_azures_header_is_taken_for_a_key(alice):
    answer = call("GET", "/v1/jobs?api-version=2025-04-01-preview", headers={"api-key": alice.secret})
    assert (answer.status_code, answer.json()["data"]) == (200, [])


def test_azures_version_is_ignored_where_a_call_takes_no_query(alice, body):
    answer = call("POST", "/v1/jobs?api-version=2025-04-01-preview", headers={"api-key": alice.secret}, json=body())
    assert answer.status_code == 202


def test_the_same_key_may_be_in_both_headers(alice):
    assert call("GET", "/v1/jobs", alice, headers={"api-key": alice.secret}).status_code == 200


def test_two_different_keys_are_refused(alice, bob):
    answer = call("GET", "/v1/jobs", alice, headers={"api-key": bob.secret})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert "different keys" in answer.json()["error"]["message"]


def test_a_wrong_key_in_azures_header_is_refused(alice):
    assert call("GET", "/v1/jobs", headers={"api-key": f"{alice.secret}x"}).status_code == 401
