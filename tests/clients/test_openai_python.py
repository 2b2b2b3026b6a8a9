"""OpenAI's Python client, unmodified."""

import asyncio
import base64
import io
import json

import httpx
import pytest
from openai import (
    APITimeoutError,
    AsyncOpenAI,
    AuthenticationError,
    AzureOpenAI,
    BadRequestError,
    NotFoundError,
    OpenAI,
    RateLimitError,
)
from PIL import Image

from easel_client import Easel
from tests.clients.programs import requests_of
from tests.live import LiveEasel, all_costs

MODEL = "z-image-demo"
ASKED = {"model": MODEL, "prompt": "a red circle on a blue background", "size": "128x128"}


def client_of(caller: Easel) -> OpenAI:
    return OpenAI(base_url=f"{caller.url}/v1", api_key=caller.api_key)


@pytest.fixture
def client(caller: Easel) -> OpenAI:
    return client_of(caller)


def picture(b64_json: str | None) -> tuple[str | None, tuple[int, int]]:
    image = Image.open(io.BytesIO(base64.b64decode(b64_json or "")))
    return image.format, image.size


@pytest.mark.parametrize(("output_format", "name"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_an_image_has_the_size_and_format_that_were_asked_for(client, output_format, name):
    answer = client.images.generate(**ASKED, output_format=output_format)
    assert picture(answer.data[0].b64_json) == (name, (128, 128))
    assert (answer.size, answer.output_format) == ("128x128", output_format)


def test_the_asynchronous_client_gets_as_many_images_as_it_asks_for(caller):
    async def generate():
        async with AsyncOpenAI(base_url=f"{caller.url}/v1", api_key=caller.api_key) as client:
            return await asyncio.gather(*(client.images.generate(**ASKED, n=2) for _ in range(3)))

    answers = asyncio.run(generate())
    assert [picture(image.b64_json) for answer in answers for image in answer.data] == [("PNG", (128, 128))] * 6


def test_a_stream_has_previews_and_then_the_image_with_its_cost(client, caller):
    with client.images.generate(**(ASKED | {"size": "512x512"}), stream=True, partial_images=2) as stream:
        *partial, last = stream
    assert [event.partial_image_index for event in partial] == [0, 1]
    assert picture(last.b64_json) == ("PNG", (512, 512))
    assert last.usage.cost * 1e6 == pytest.approx(all_costs(caller, group_by="model")["total"]["amount_micros"])


def test_a_raw_answer_has_the_request_id_and_the_cost_among_its_headers(client, caller):
    raw = client.images.with_raw_response.generate(**ASKED)
    answer = raw.parse()
    assert raw.headers["x-request-id"] == answer._request_id
    assert float(raw.headers["easel-cost"]) == answer.usage.cost
    assert raw.headers["easel-cost-currency"] == "USD"


def test_a_time_out_of_the_callers_own_ends_the_call(client):
    with pytest.raises(APITimeoutError):
        client.with_options(timeout=0.001, max_retries=0).images.generate(**ASKED)


def test_a_bad_size_is_named_by_code_parameter_and_message(client):
    with pytest.raises(BadRequestError) as refused:
        client.images.generate(**(ASKED | {"size": "100x100"}))
    assert (refused.value.code, refused.value.param) == ("size_invalid", "size")
    assert "multiple" in refused.value.message


def test_a_wrong_key_is_refused(caller):
    with pytest.raises(AuthenticationError) as refused:
        OpenAI(base_url=f"{caller.url}/v1", api_key="sk-wrong").images.generate(**ASKED)
    assert refused.value.code == "invalid_api_key"


def test_a_rate_limit_says_when_to_try_again(hasty):
    with pytest.raises(RateLimitError) as refused:
        client_of(hasty).with_options(max_retries=0).images.generate(**ASKED)
    assert refused.value.code == "rate_limit_exceeded"
    assert 0 < int(refused.value.response.headers["retry-after"]) <= 60
    assert refused.value.response.headers["x-should-retry"] == "true"


def test_a_caller_without_credit_is_refused_once_and_not_again(easel: LiveEasel, poor):
    with pytest.raises(RateLimitError) as refused:
        client_of(poor).images.generate(**ASKED)
    assert refused.value.code == "insufficient_quota"
    assert requests_of(easel, poor) == [429]


def test_models_are_listed_and_retrieved(client):
    assert MODEL in [model.id for model in client.models.list()]
    model = client.models.retrieve(MODEL)
    assert (model.id, model.object, model.owned_by) == (MODEL, "model", "easel")


def test_a_model_that_is_not_served_is_named(client):
    with pytest.raises(NotFoundError) as refused:
        client.images.generate(**(ASKED | {"model": "midjourney"}))
    assert refused.value.code == "model_not_found"
    assert "midjourney" in refused.value.message


@pytest.mark.filterwarnings("ignore:deprecated")  # the client's own mark on variations
@pytest.mark.parametrize("change", ["edit", "create_variation"])
def test_a_change_of_an_image_is_refused_by_one_clear_code(client, easel: LiveEasel, caller, change):
    prompt = {"prompt": "a blue circle"} if change == "edit" else {}
    with pytest.raises(NotFoundError) as refused:
        getattr(client.images, change)(model=MODEL, image=("circle.png", b"\x89PNG", "image/png"), **prompt)
    assert refused.value.code == "unsupported_endpoint"
    assert requests_of(easel, caller) == [404]


def test_a_batch_is_worked_off_for_half_the_price(client, easel: LiveEasel):
    call = {"method": "POST", "url": "/v1/images/generations"}
    lines = [{"custom_id": f"circle-{seed}", **call, "body": {**ASKED, "seed": seed}} for seed in range(3)]
    content = "\n".join(map(json.dumps, lines)).encode()
    file = client.files.create(file=("circles.jsonl", content), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=call["url"], completion_window="24h")
    easel.wait_for(lambda: client.batches.retrieve(batch.id).status == "completed", seconds=120)
    output = client.files.content(client.batches.retrieve(batch.id).output_file_id or "")
    answers = [json.loads(line)["response"]["body"] for line in output.text.splitlines()]
    for answer in answers:
        image = httpx.get(answer["data"][0]["url"]).raise_for_status()
        assert Image.open(io.BytesIO(image.content)).size == (128, 128)
        # Half of what its measured seconds at 0.0001, 0.0625 units at 0.002 and a request at 0.0005 cost.
        whole = answer["usage"]["gpu_seconds"] * 100 + 125 + 500
        assert answer["usage"]["cost"] * 1e6 == pytest.approx(whole / 2, abs=2)
    assert len(answers) == 3


# --- Azure's client


def azure_of(caller: Easel, **options) -> AzureOpenAI:
    return AzureOpenAI(azure_endpoint=caller.url, api_key=caller.api_key, api_version="2025-04-01-preview", **options)


def test_azures_client_generates_streams_lists_models_and_meets_errors(caller, easel: LiveEasel):
    client = azure_of(caller)
    answer = client.images.generate(**ASKED)
    assert picture(answer.data[0].b64_json) == ("PNG", (128, 128))
    with client.images.generate(**ASKED, stream=True) as stream:
        (event,) = stream
    assert picture(event.b64_json) == ("PNG", (128, 128))
    charged = all_costs(caller, group_by="model")["total"]["amount_micros"]
    assert (answer.usage.cost + event.usage.cost) * 1e6 == pytest.approx(charged)
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(BadRequestError) as size:
        client.images.generate(**(ASKED | {"size": "100x100"}))
    assert (size.value.code, size.value.param) == ("size_invalid", "size")
    with pytest.raises(NotFoundError) as model:
        client.images.generate(**(ASKED | {"model": "midjourney"}))
    assert model.value.code == "model_not_found"
    with pytest.raises(AuthenticationError):
        azure_of(Easel(caller.url, "sk-wrong")).images.generate(**ASKED)


def test_azures_deployment_of_the_client_decides_the_model(caller):
    client = azure_of(caller, azure_deployment=MODEL)
    answer = client.images.generate(**(ASKED | {"model": "a-model-of-azure"}))
    assert caller.jobs.get(answer.job_id)["model"] == MODEL
    assert MODEL in [model.id for model in client.models.list()]


def test_openais_client_works_at_azures_newer_address(caller):
    client = OpenAI(base_url=f"{caller.url}/openai/v1/", api_key=caller.api_key)
    assert picture(client.images.generate(**ASKED).data[0].b64_json) == ("PNG", (128, 128))
