"""Fields that other image APIs have: what means the same is taken, the rest is refused, or ignored with a warning."""

import json

import pytest

from easel.api.declaration import WARNINGS_MAX
from easel.jobs.models import Job
from tenants.keys import key_rotate, key_set_leniency
from tests.conftest import NOW, PEPPER
from tests.easel.api.conftest import PNG, call, end_job
from tests.easel.api.test_images import generated
from tests.easel.api.test_refusals import left_nothing, refused

IMAGES, JOBS, QUOTES = "/v1/images/generations", "/v1/jobs", "/v1/images/quotes"


@pytest.fixture
def lenient(alice):
    """A customer whose key is lenient."""
    key_set_leniency(key=alice.key, is_lenient=True)
    return alice


@pytest.mark.parametrize(
    ("fields", "same"),
    [
        ({"num_inference_steps": 3}, {"steps": 3}),
        ({"step": 3}, {"steps": 3}),
        ({"step": 3, "steps": 3, "num_inference_steps": 3}, {"steps": 3}),
        ({"width": 256, "height": 128}, {"size": "256x128"}),
        ({"width": 256, "height": 128, "size": "auto"}, {"size": "256x128"}),
        ({"width": 256, "height": 128, "size": "256X128"}, {"size": "256x128"}),
        ({"size": "256X128"}, {"size": "256x128"}),
        ({"size": "256×128"}, {"size": "256x128"}),
        ({"size": "256*128"}, {"size": "256x128"}),
    ],
)
def test_another_name_or_spelling_is_taken(alice, create, fields, same):
    job = create(alice, **fields)
    assert {name: job[name] for name in same} == same
    assert job["warnings"] == []


def test_a_seed_of_minus_one_is_random_and_never_answered_from_the_cache(alice, create):
    first, second = create(alice, seed=-1), create(alice, seed=-1)
    assert 0 <= first["seed"] != second["seed"] >= 0
    assert Job.objects.get(id=first["id"]).result_key == ""


def test_jpg_is_jpeg(alice, create):
    assert Job.objects.get(id=create(alice, output_format="jpg")["id"]).output_format == "jpeg"


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"steps": 3, "num_inference_steps": 4}, "num_inference_steps", "invalid_value"),
        ({"num_inference_steps": 3, "step": 4}, "step", "invalid_value"),
        ({"width": 256, "height": 256, "size": "256x128"}, "width", "invalid_value"),
        ({"width": 256, "height": 256, "size": "large"}, "width", "invalid_value"),
        ({"width": 256}, "height", "missing_required_parameter"),
        ({"height": 256}, "width", "missing_required_parameter"),
        ({"width": 256, "height": None}, "height", "missing_required_parameter"),
        ({"width": 0, "height": 256}, "width", "invalid_value"),
        ({"width": 10**30, "height": 256}, "width", "invalid_value"),
        ({"width": 250, "height": 256}, "size", "size_invalid"),
        ({"num_inference_steps": "3"}, "num_inference_steps", "invalid_value"),
        ({"num_inference_steps": 1000}, "steps", "steps_invalid"),
        ({"guidance_scale": "7"}, "guidance_scale", "invalid_value"),
    ],
)
@pytest.mark.parametrize("is_lenient", [False, True])
def test_contradictions_and_wrong_values_are_refused_of_lenient_keys_too(alice, body, fields, param, code, is_lenient):
    key_set_leniency(key=alice.key, is_lenient=is_lenient)
    refused(call("POST", JOBS, alice, json=body(**fields)), 400, code, param)
    left_nothing(alice)


@pytest.mark.parametrize(
    "fields",
    [
        {"negative_prompt": ""},
        {"negative_prompt": " "},
        {"guidance_scale": 0},
        {"guidance_scale": 0.0},
        {"true_cfg_scale": 1},
        {"true_cfg_scale": 0},
        {"cfg_scale": 1.0},
        {"style": None},
        {"moderation": "auto"},
        {"background": "opaque"},
        {"background": "auto"},
    ],
)
def test_what_the_model_does_anyway_is_taken(alice, create, fields):
    assert create(alice, **fields)["warnings"] == []


UNSUPPORTED = [
    {"negative_prompt": "blurry"},
    {"guidance_scale": 7.5},
    {"guidance_scale": 1},  # this family of models adds one times the difference to the negative prompt
    {"true_cfg_scale": 4},
    {"cfg_scale": 0},  # that is the negative prompt alone
    {"cfg_scale": 7},
    {"style": "vivid"},
    {"moderation": "low"},
    {"background": "transparent"},
]


@pytest.mark.parametrize("path", [IMAGES, JOBS, QUOTES])
@pytest.mark.parametrize("fields", UNSUPPORTED, ids=str)
def test_what_the_model_cannot_do_is_refused_by_name(alice, body, path, fields):
    (name,) = fields
    answer = call("POST", path, alice, json=body(**fields))
    refused(answer, 400, "unsupported_parameter", name)
    assert "leave it out" in answer.json()["error"]["message"]
    left_nothing(alice)


@pytest.mark.parametrize("fields", UNSUPPORTED, ids=str)
def test_a_lenient_key_gets_a_warning_instead(lenient, create, fields):
    (name,) = fields
    (warning,) = create(lenient, **fields)["warnings"]
    assert (warning["param"], warning["code"]) == (name, "unsupported_parameter")
    assert warning["message"].startswith(f"ignored {name}: ")


def test_a_lenient_key_has_unknown_fields_ignored_with_a_hint(lenient, create):
    job = create(lenient, adapters=[], stepz=5, zzzzzzzz={"a": [1]})
    assert [(one["param"], one["code"]) for one in job["warnings"]] == [
        ("stepz", "unknown_field"),
        ("zzzzzzzz", "unknown_field"),
    ]
    assert "did you mean steps?" in job["warnings"][0]["message"]
    assert job["steps"] == 8  # the model's


def test_a_lenient_key_has_unknown_fields_of_nested_objects_ignored_too(lenient, body):
    answer = call("POST", JOBS, lenient, json=body(adapters=[{"name": "nobody-has-it", "weight": 1}]))
    refused(answer, 404, "adapter_not_found")  # and not 400 for the weight


def test_warnings_do_not_grow_with_the_request(lenient, create):
    job = create(lenient, **{f"{'x' * 5000}{number:05}": 1 for number in range(150)})
    assert len(job["warnings"]) == WARNINGS_MAX + 1
    assert "like 129 more fields" in job["warnings"][-1]["message"]
    assert max(len(one["param"]) for one in job["warnings"]) == 64


@pytest.mark.parametrize("name", ["\x00", "\ud800", "a\x00b", "💥", ""])
def test_no_name_of_an_ignored_field_breaks_the_job(lenient, body, name):
    headers = {"Content-Type": "application/json"}
    answer = call("POST", JOBS, lenient, content=json.dumps(body(**{name: 1})), headers=headers)
    assert answer.status_code == 202, answer.text
    assert len(answer.json()["warnings"]) == 1


def test_the_images_answer_the_job_and_a_replay_show_the_warnings(lenient, body):
    content = body(style="vivid", response_format="url")
    first = generated(lenient, content).json()
    assert [one["param"] for one in first["warnings"]] == ["style"]
    assert call("GET", f"/v1/jobs/{first['job_id']}", lenient).json()["warnings"] == first["warnings"]


def test_a_replay_shows_the_warnings_of_the_first_request(lenient, body):
    options = {"json": body(style="vivid"), "headers": {"Idempotency-Key": "order-7"}}
    first = call("POST", JOBS, lenient, **options).json()
    key_set_leniency(key=lenient.key, is_lenient=True)
    again = call("POST", JOBS, lenient, **options)
    assert (again.headers["Idempotent-Replayed"], again.json()["warnings"]) == ("true", first["warnings"])


def test_a_quote_shows_the_warnings(lenient, body):
    quote = call("POST", QUOTES, lenient, json=body(background="transparent")).json()
    assert [one["param"] for one in quote["warnings"]] == ["background"]


def test_previews_without_a_stream_are_ignored_for_a_lenient_key(lenient, body):
    answer = generated(lenient, body(partial_images=2)).json()
    assert [one["param"] for one in answer["warnings"]] == ["partial_images"]
    assert Job.objects.get(id=answer["job_id"]).partial_images == 0


def test_the_warnings_of_a_deleted_job_are_deleted_with_its_texts(lenient, create):
    job = create(lenient, my_secret_field=1)
    end_job(job["id"])
    assert call("DELETE", f"/v1/jobs/{job['id']}", lenient).json()["warnings"] == []


def test_a_key_that_replaces_a_lenient_one_is_lenient(lenient):
    lenient.key.refresh_from_db()
    made, _ = key_rotate(key=lenient.key, pepper=PEPPER, now=NOW)
    assert made.is_lenient


def test_leniency_holds_from_the_next_request(lenient, body):
    assert call("POST", JOBS, lenient, json=body(style="vivid")).status_code == 202
    key_set_leniency(key=lenient.key, is_lenient=False)
    refused(call("POST", JOBS, lenient, json=body(style="vivid")), 400, "unsupported_parameter", "style")


def test_an_answer_can_carry_base64_and_a_url(alice, body):
    (image,) = generated(alice, body(response_format="both")).json()["data"]
    assert image["b64_json"]
    path = image["url"].removeprefix("http://127.0.0.1:8000")
    assert call("GET", path).content == PNG
