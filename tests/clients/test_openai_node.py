"""OpenAI's Node client, unmodified."""

import base64
import io
import json
from typing import Any

import pytest
from PIL import Image

from easel_client import Easel
from tests.clients.programs import ROOT, requests_of, run_node
from tests.live import LiveEasel, all_costs

PROGRAM = (ROOT / "tests/clients/node/openai.mjs").read_text()


AZURE = {"AZURE": "1", "OPENAI_BASE_URL": ""}  # `AzureOpenAI`, which takes its own variable for the address


def scenes(names: str, caller: Easel, folder, **env: str) -> dict[str, Any]:
    """What the program's scenes printed, by name."""
    ran = run_node(PROGRAM, caller, folder, SCENES=names, **env)
    assert ran.code == 0, ran.err
    return {found["name"]: found for found in map(json.loads, ran.out.splitlines())}


def picture(b64_json: str) -> tuple[str | None, tuple[int, int]]:
    image = Image.open(io.BytesIO(base64.b64decode(b64_json)))
    return image.format, image.size


@pytest.mark.parametrize("env", [{}, AZURE], ids=["OpenAI", "AzureOpenAI"])
def test_it_generates_and_streams_reads_the_cost_lists_models_and_meets_errors(easel: LiveEasel, caller, tmp_path, env):
    found = scenes("generate,stream,models,size,edit", caller, tmp_path, **env)
    assert requests_of(easel, caller) == [200, 200, 200, 200, 400, 404]

    generate, stream = found["generate"], found["stream"]
    assert [picture(image) for image in generate["images"]] == [("WEBP", (128, 128))] * 2
    assert generate["usage"]["cost"] == float(generate["cost"]) > 0
    assert stream["types"] == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [picture(image) for image in stream["images"]] == [("PNG", (512, 512))]
    charged = all_costs(caller, group_by="model")["total"]["amount_micros"]
    assert (generate["usage"]["cost"] + stream["usage"]["cost"]) * 1e6 == pytest.approx(charged)

    assert "z-image-demo" in found["models"]["listed"]
    assert found["models"]["retrieved"] == "z-image-demo"

    size, edit = found["size"], found["edit"]
    assert (size["refused"], size["code"], size["param"]) == ("BadRequestError", "size_invalid", "size")
    assert "multiple" in size["message"]
    assert (edit["refused"], edit["code"]) == ("NotFoundError", "unsupported_endpoint")


def test_a_rate_limit_says_when_to_try_again(hasty, tmp_path):
    once = scenes("once", hasty, tmp_path)["once"]
    assert (once["refused"], once["code"]) == ("RateLimitError", "rate_limit_exceeded")
    assert 0 < int(once["headers"]["retry-after"]) <= 60


def test_a_caller_without_credit_is_refused_once_and_not_again(easel: LiveEasel, poor, tmp_path):
    retried = scenes("retried", poor, tmp_path)["retried"]
    assert (retried["refused"], retried["code"]) == ("RateLimitError", "insufficient_quota")
    assert requests_of(easel, poor) == [429]
