"""Tools whose program doesn't run here, by the requests that they send (`tools.py`)."""

import base64
import io
import json

import httpx
import pytest
from PIL import Image

from tests.clients.programs import PAGES, blocks
from tests.clients.tools import LENIENT, TOOLS, Installation, ask, size_of

FORMATS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP"}


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_reads_an_image_and_its_cost(installation: Installation, name):
    _, answer = installation.generated_by(name)
    assert answer.status_code == 200, answer.text
    found, tool = answer.json(), TOOLS[name]
    content = b""
    for image in found["data"]:
        if tool["reads"] == "url":
            # Open WebUI sends its key there too; others send nothing.
            content = httpx.get(image["url"]).raise_for_status().content
            keyed = httpx.get(image["url"], headers={"Authorization": f"Bearer {installation.caller.api_key}"})
            assert keyed.content == content
        else:
            content = base64.b64decode(image["b64_json"])
    opened = Image.open(io.BytesIO(content))
    assert (opened.format, opened.size) == (FORMATS[tool["body"].get("output_format") or "png"], size_of(tool["body"]))
    assert found["usage"]["cost"] == float(answer.headers["Easel-Cost"]) > 0


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_shows_what_was_wrong(installation: Installation, name):
    side = {"width": 100, "height": 100} if "width" in TOOLS[name]["body"] else {"size": "100x100"}
    answer = ask(TOOLS[name], installation.lenient, **side)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], answer.headers["x-should-retry"]) == (400, "size_invalid", "false")
    assert "multiples of 16" in error["message"]


@pytest.mark.parametrize("name", [name for name in TOOLS if "transparent" not in name])
def test_a_tool_of_a_caller_without_credit_is_asked_not_to_try_again(installation: Installation, name):
    answer = ask(TOOLS[name], installation.poor)
    if answer.status_code == 400:  # refused for a field before its price is known
        assert installation.generated_by(name)[0] == LENIENT
        return
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "insufficient_quota")
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("name", TOOLS)
def test_the_page_of_a_tool_shows_the_request_that_is_tried(name):
    shown = [json.loads(block) for block in blocks(PAGES / TOOLS[name]["page"], "json")]
    # The page names the model that most readers have.
    sent = {field: "z-image-turbo" if value == "$model" else value for field, value in TOOLS[name]["body"].items()}
    assert sent in shown
