"""OpenAI's calls that change an image, which no model here can do."""

import pytest

from tests.easel.api.conftest import call

PATHS = ("/v1/images/edits", "/v1/images/variations")
FORM = {"model": "gpt-image-1", "prompt": "a blue circle"}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["image", "image[]"])
def test_an_image_to_change_is_refused_by_a_code_and_with_what_to_do(alice, path, name):
    answer = call("POST", path, alice, data=FORM, files={name: ("circle.png", b"\x89PNG", "image/png")})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (404, "unsupported_endpoint")
    assert "POST /v1/images/generations" in error["message"]
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("path", PATHS)
def test_an_image_over_the_limit_of_json_gets_the_same_refusal(alice, path):
    answer = call("POST", path, alice, data=FORM, files={"image": ("photo.png", bytes(5_000_000), "image/png")})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unsupported_endpoint")


@pytest.mark.parametrize("path", PATHS)
def test_a_call_without_a_key_is_refused_for_that(path):
    assert call("POST", path, data=FORM).status_code == 401
