"""What a tenant gets, through the unmodified OpenAI client and through curl-like HTTP."""

import base64
import io

import httpx
import pytest
from openai import OpenAI
from PIL import Image

from easel_client import Easel, Refused
from inference.demo_model import ADAPTERS_DIR
from inference.demo_model.measure import describe
from inference.demo_model.scenes import Thing
from tests.live import all_costs

PROMPT = "a red circle on a blue background"


@pytest.fixture
def openai(alice: Easel) -> OpenAI:
    return OpenAI(base_url=f"{alice.url}/v1", api_key=alice.api_key, max_retries=0)


def picture(b64_json: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(b64_json)))


def shows_a_red_circle_on_blue(image: Image.Image) -> bool:
    seen = describe(image)
    return seen.background == "blue" and [found.thing for found in seen.found] == [Thing("red", "circle")]


def finished(client: Easel, **fields: object) -> dict:
    *_, last = client.jobs.follow(client.jobs.create(**fields))
    return last


def test_the_openai_client_gets_the_red_circle_it_asks_for(openai):
    answer = openai.images.generate(
        model="z-image-demo", prompt=PROMPT, size="256x256", response_format="b64_json", extra_body={"seed": 7}
    )
    image = picture(answer.data[0].b64_json)
    assert (image.format, image.size) == ("PNG", (256, 256))
    assert shows_a_red_circle_on_blue(image)


def test_the_openai_client_gets_urls_that_need_no_key(openai):
    answer = openai.images.generate(model="z-image-demo", prompt=PROMPT, size="128x128", n=2, response_format="url")
    fetched = [httpx.get(image.url) for image in answer.data]
    assert [(got.status_code, got.headers["content-type"]) for got in fetched] == [(200, "image/png")] * 2
    assert fetched[0].content != fetched[1].content


def test_the_openai_client_sees_the_image_come(openai):
    with openai.images.generate(
        model="z-image-demo", prompt=PROMPT, size="512x512", stream=True, partial_images=2, extra_body={"seed": 7}
    ) as stream:
        *partial, last = stream
    assert [(event.type, event.partial_image_index) for event in partial] == [
        ("image_generation.partial_image", index) for index in range(2)
    ]
    assert all(picture(event.b64_json).format == "PNG" for event in partial)
    assert (last.type, picture(last.b64_json).size) == ("image_generation.completed", (512, 512))
    assert shows_a_red_circle_on_blue(picture(last.b64_json))


def test_a_jobs_events_end_with_the_job(alice):
    job = alice.jobs.create(prompt=PROMPT, size="128x128", seed=11)
    headers = {"Authorization": f"Bearer {alice.api_key}"}
    answer = httpx.get(f"{alice.url}/v1/jobs/{job['id']}/events", headers=headers, timeout=60)
    kinds = [line.removeprefix("event: ") for line in answer.text.splitlines() if line.startswith("event: ")]
    assert kinds[-1] == "job.succeeded"


def test_the_answer_says_what_was_used_and_what_it_cost(openai):
    answer = openai.images.generate(model="z-image-demo", prompt=PROMPT, size="256x256", n=2)
    usage = answer.usage.model_extra
    assert answer.usage.output_tokens == 2 * 256
    assert usage["image_units"] == 0.5
    assert usage["gpu_seconds"] > 0
    assert (
        usage["cost_details"]["amount_micros"] >= 500 + 1000
    )  # the request and half an image unit, before GPU seconds


def test_a_seed_gives_the_same_picture_again_and_an_adapter_another(alice):
    alice.adapters.upload(name="outline", file=ADAPTERS_DIR / "outline.safetensors")
    request = {"prompt": PROMPT, "size": "128x128", "seed": 3, "cache": False}
    jobs = [
        finished(alice, **request),
        finished(alice, **request, adapters=[{"name": "outline"}]),
        finished(alice, **request),
        finished(alice, **request, adapters=[{"name": "outline"}]),
    ]
    plain, outlined, plain_again, outlined_again = (alice.fetch(job["images"][0]["url"]) for job in jobs)
    assert plain == plain_again
    assert outlined == outlined_again
    assert plain != outlined


def test_the_same_request_again_is_answered_with_the_same_picture_for_the_request_fee(alice):
    request = {"prompt": PROMPT, "size": "128x128", "seed": 4}
    generated, answered = finished(alice, **request), finished(alice, **request)
    assert (answered["cached_from"], answered["usage"]["cached"], generated["usage"]["cached"]) == (
        generated["id"],
        True,
        False,
    )
    assert (
        answered["usage"]["cost_details"]["amount_micros"] == 500 < generated["usage"]["cost_details"]["amount_micros"]
    )
    assert answered["attempts"] == 0
    pictures = [alice.fetch(job["images"][0]["url"]) for job in (generated, answered)]
    assert pictures[0] == pictures[1]


def test_usage_adds_up_to_the_jobs(alice):
    jobs = [finished(alice, prompt=PROMPT, size="128x128") for _ in range(2)]
    costs = all_costs(alice, group_by="model")
    assert costs["data"][0]["requests"] == 2
    assert costs["total"]["amount_micros"] == sum(job["usage"]["cost_details"]["amount_micros"] for job in jobs)


def test_a_job_in_the_workers_hands_is_canceled_and_costs_nothing(easel, alice):
    job = alice.jobs.create(prompt=PROMPT, size="512x512", steps=50, n=10)
    following = alice.jobs.follow(job)
    next(state for state in following if state["status"] == "running")
    httpx.post(job["urls"]["cancel"], headers={"Authorization": f"Bearer {alice.api_key}"}).raise_for_status()
    *_, last = following
    assert last["status"] == "canceled"
    assert alice.costs.get(group_by="project")["data"] == []


def test_the_command_line_draws_into_a_file(easel, tmp_path):
    done = easel.command("generate", PROMPT, "--size", "128x128", "-o", str(tmp_path / "out.png"))
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "out.png").size == (128, 128)


def test_the_command_line_names_the_reason_when_it_can_not_draw(easel, tmp_path):
    done = easel.command("generate", PROMPT, "--size", "100x100", "-o", str(tmp_path / "out.png"))
    assert (done.returncode, "size_invalid" in done.stderr) == (1, True)
    assert not (tmp_path / "out.png").exists()


def test_a_revoked_key_stops_working(easel, alice):
    key_id = alice.api_key.split("_")[2]
    assert easel.command("key", "revoke", key_id).returncode == 0
    with pytest.raises(Refused) as refused:
        alice.costs.get(group_by="project")
    assert refused.value.code == "invalid_api_key"


def test_the_invariants_hold_on_the_live_system(easel):
    found = easel.json("audit")
    assert found == {"ok": True, "broken": {}}
