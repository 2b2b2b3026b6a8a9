"""What every input of the API has in common: null means unset, and an unknown field is refused with a hint."""

import io
import json
import math
import re
from collections.abc import Iterator

import pytest
from jsonschema import Draft202012Validator

from core.errors import DomainError
from easel.api import budgets, experiments, jobs, webhooks
from easel.api.adapters import AdapterUploadInput
from easel.api.batches import BatchInput
from easel.api.declaration import Input, UrlQuery
from easel.api.errors import InvalidField
from easel.api.expires_after import ExpiresAfterInput
from easel.api.files import FileUploadInput
from easel.api.generation_input import AdapterInput, JobInput
from easel.api.images import ImagesInput
from easel.api.quotes import QuoteInput
from easel.jobs.models import Job
from tests.easel.api.conftest import call, end_job
from tests.easel.api.test_images import generated
from tests.easel.api.test_refusals import left_nothing, refused

# The least that each input takes.
LEAST = {
    JobInput: {"prompt": "a red circle"},
    ImagesInput: {"prompt": "a red circle"},
    QuoteInput: {"prompt": "a red circle"},
    AdapterInput: {"name": "outline"},
    jobs.FeedbackInput: {"score": 0.5},
    AdapterUploadInput: {"name": "outline", "file": io.BytesIO(b"weights")},
    budgets.BudgetInput: {"amount_micros": 5},
    experiments.ArmInput: {"name": "a", "weight": 100},
    experiments.ExperimentInput: {"name": "test", "arms": []},
    webhooks.WebhookInput: {"url": "https://example.test/hook"},
    webhooks.WebhookChangeInput: {},
    BatchInput: {"input_file_id": "file-1", "endpoint": "/v1/images/generations", "completion_window": "24h"},
    FileUploadInput: {"purpose": "batch", "file": io.BytesIO(b"{}")},
    ExpiresAfterInput: {"anchor": "created_at", "seconds": 3600},
}


def inputs(declared: type[Input] = Input) -> Iterator[type[Input]]:
    """Every JSON body that a call of the API takes, and the parts of those."""
    for one in declared.__subclasses__():
        if one.__module__.startswith("easel.api") and not issubclass(one, UrlQuery):
            yield one
            yield from inputs(one)


def test_every_input_of_the_api_is_tried_here():
    assert set(inputs()) == set(LEAST)


@pytest.mark.parametrize("declared", LEAST, ids=lambda declared: declared.__name__)
class TestNullIsUnset:
    def test_in_every_optional_field(self, declared):
        optional = [name for name, field in declared.model_fields.items() if not field.is_required()]
        read = declared.read({**dict.fromkeys(optional), **LEAST[declared]})
        assert read == declared.read(LEAST[declared])
        assert read.given() == declared.read(LEAST[declared]).given()

    def test_in_a_required_field_which_is_then_missing(self, declared):
        for name in LEAST[declared]:
            with pytest.raises(InvalidField) as refusal:
                declared.read({**LEAST[declared], name: None})
            assert (refusal.value.code, refusal.value.param) == ("missing_required_parameter", name)

    def test_in_the_openapi_document(self, declared):
        schema = declared.model_json_schema(mode="validation")
        properties = {name: {**field, "$defs": schema.get("$defs", {})} for name, field in schema["properties"].items()}
        required = {name for name, field in declared.model_fields.items() if field.is_required()}
        takes_null = {name for name, field in properties.items() if Draft202012Validator(field).is_valid(None)}
        assert takes_null == set(properties) - required


def test_null_is_unset_in_nested_fields(alice, body):
    fields = JobInput.read(body(adapters=[{"name": "outline", "scale": None}], metadata={"a": None, "b": "c"}))
    assert fields.adapters[0].scale == 1.0
    assert fields.metadata == {"b": "c"}


def test_null_in_a_list_is_refused_since_a_list_has_nothing_to_leave_out(alice, body):
    refused(call("POST", "/v1/jobs", alice, json=body(adapters=[None])), 400, "invalid_value", "adapters.0")
    left_nothing(alice)


def test_the_images_call_takes_every_optional_field_as_null(alice, body):
    least = body()
    nulls = dict.fromkeys(ImagesInput.model_fields.keys() - least.keys())
    answer = generated(alice, {**nulls, **least})
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"][0]["b64_json"]


def test_a_quote_and_a_job_take_every_optional_field_as_null(alice, body):
    least = body()
    nulls = dict.fromkeys(JobInput.model_fields.keys() - least.keys())
    assert call("POST", "/v1/images/quotes", alice, json={**nulls, **least}).status_code == 200
    job = call("POST", "/v1/jobs", alice, json={**nulls, **least})
    assert job.status_code == 202, job.text
    assert Job.objects.get(tenant=alice.tenant).metadata == {}


def test_budgets_feedback_experiments_and_webhooks_take_nulls(customer, version, create):
    alice = customer(scopes=("generate", "usage", "billing", "webhooks"))
    budget = {"amount_micros": 5_000_000, "project": None, "api_key": None, "currency": None, "hard_stop": None}
    assert call("PUT", "/v1/budgets", alice, json=budget).status_code == 200
    job = create(alice)
    end_job(job["id"])
    feedback = {"score": 1, "comment": None}
    assert call("POST", f"/v1/jobs/{job['id']}/feedback", alice, json=feedback).status_code == 201
    nulls = {"version": None, "adapters": None}
    arms = [{"name": "a", "weight": 50, "steps": None, **nulls}, {"name": "b", "weight": 50, "steps": 2, **nulls}]
    experiment = {"name": "test", "model": version.model.name, "arms": arms}
    assert call("POST", "/v1/experiments", alice, json=experiment).status_code == 201
    webhook = call("POST", "/v1/webhooks", alice, json={"url": "https://1.1.1.1/hook", "events": None})
    assert webhook.status_code == 201, webhook.text


def test_a_patch_leaves_what_is_null_unchanged(customer):
    alice = customer(scopes=("webhooks",))
    webhook = {"url": "https://1.1.1.1/hook", "events": ["job.failed"]}
    before = call("POST", "/v1/webhooks", alice, json=webhook).json()
    change = {"url": None, "events": None, "enabled": False}
    after = call("PATCH", f"/v1/webhooks/{before['id']}", alice, json=change).json()
    assert (after["url"], after["events"], after["enabled"]) == (webhook["url"], webhook["events"], False)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": ...}, "prompt is required: send it"),
        ({"prompt": 5}, "prompt must be a string"),
        ({"prompt": "a\x00b"}, "prompt has U+0000 at position 1, which can't be stored: leave it out"),
        ({"model": ""}, "model must not be empty"),
        ({"model": "x" * 101}, "model must have at most 100 characters"),
        ({"n": 0}, "n must be at least 1"),
        ({"n": 11}, "n must be at most 10"),
        ({"n": "2"}, "n must be a whole number"),
        ({"cache": "perhaps"}, "cache must be true or false"),
        ({"cache": [1]}, "cache must be true or false"),
        ({"guidance_scale": "high"}, "guidance_scale must be a number"),
        (
            {"style": "vivid"},
            "style can't be obeyed, since the model has no styles: leave it out, and describe the style in the prompt",
        ),
        ({"output_format": "gif"}, "output_format must be one of png, jpeg, jpg, webp"),
        ({"adapters": "outline"}, "adapters must be a list"),
        ({"adapters": [None]}, "adapters.0 must not be null: leave it out"),
        ({"adapters": ["outline"]}, "adapters.0 must be a JSON object"),
        ({"adapters": [{"name": "a", "scale": 9}]}, "adapters.0.scale must be at most 4.0"),
        ({"adapters": [{"name": "a"}, {"name": "a"}]}, "adapters must name each adapter once"),
        ({"adapters": [{"name": str(i)} for i in range(5)]}, "adapters must have at most 4 elements"),
        ({"metadata": "a"}, "metadata must be a JSON object"),
        ({"metadata": {"a": 1}}, "metadata.a must be a string of at most 512 characters, none of them NUL"),
        ({"promt": "x"}, "promt is not known here; did you mean prompt?"),
        ({"steps": 4, "step": 5}, "step is 5, but steps, another name of it, is 4: send one of them"),
        ({"width": 256}, "height is required beside width: send both, or size"),
    ],
)
def test_a_refused_field_is_the_subject_of_a_sentence_that_says_what_to_send(alice, body, fields, message):
    answer = call("POST", "/v1/jobs", alice, json=body(**fields))
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, message)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1/jobs?limit=many", "limit must be a whole number"),
        ("/v1/jobs?limit=0", "limit must be at least 1"),
        ("/v1/jobs?after=last", "after must be an id, a UUID as the answers have it"),
        ("/v1/costs?start=january", "start must be a day, as 2027-01-31"),
        ("/v1/costs?start=2027-01-31&end=2027-01-01", "end must not be before start, 2027-01-31"),
        ("/v1/costs?group_by=day,model,tier,key,project", "group_by must name at most 4 groups"),
    ],
)
def test_so_is_a_field_of_a_query_string(alice, path, message):
    answer = call("GET", path, alice)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, message)


def test_a_body_that_is_no_object_is_named_itself(alice):
    answer = call("POST", "/v1/jobs", alice, json=[])
    assert answer.json()["error"] == {
        "message": "the body must be a JSON object",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_value",
    }


def queries(declared: type[UrlQuery] = UrlQuery) -> Iterator[type[UrlQuery]]:
    """Every query string that a call of the API takes."""
    for one in declared.__subclasses__():
        yield one
        yield from queries(one)


WRONG = [
    None,
    True,
    -1,
    10**30,
    10**400,
    1.5,
    math.nan,
    "",
    "x" * 5000,
    "\ud800",
    "\0",
    "9" * 5000,
    "2027-02-30",
    [],
    {},
]
WRONG += [*([value] for value in WRONG), ["x"] * 200, {"a": 1}, {str(i): "x" for i in range(40)}]


def refusals(kind: type[Input]) -> Iterator[str]:
    """The messages of all that an input refuses of each of its fields."""
    for name in kind.model_fields:
        for value in WRONG:
            if isinstance(value, str) or not issubclass(kind, UrlQuery):
                try:
                    kind.read({**LEAST.get(kind, {}), name: value})
                except DomainError as error:
                    yield str(error)


@pytest.mark.parametrize("kind", [*LEAST, *queries()], ids=lambda kind: kind.__name__)
def test_no_field_is_refused_in_the_words_of_the_library(kind):
    found = set(refusals(kind))
    assert found or not kind.model_fields
    assert not [message for message in found if re.search("Input|should|valid", message)]


@pytest.mark.parametrize(
    ("fields", "param", "meant"),
    [
        ({"stepz": 5}, "stepz", "steps"),
        ({"promt": "x"}, "promt", "prompt"),
        ({"adapters": [{"name": "a", "scal": 1}]}, "adapters.0.scal", "scale"),
    ],
)
def test_an_unknown_field_names_the_one_that_was_meant(alice, body, fields, param, meant):
    answer = call("POST", "/v1/jobs", alice, json=body(**fields))
    refused(answer, 400, "unknown_field", param)
    assert f"did you mean {meant}?" in answer.json()["error"]["message"]


def test_an_unknown_field_of_a_query_string_names_the_one_that_was_meant(alice):
    answer = call("GET", "/v1/jobs?limits=5", alice)
    refused(answer, 400, "unknown_field", "limits")
    assert "did you mean limit?" in answer.json()["error"]["message"]


def test_an_unknown_field_like_no_other_says_where_the_fields_are_listed(alice, body):
    answer = call("POST", "/v1/jobs", alice, json=body(zzzzzzzz=1))
    refused(answer, 400, "unknown_field", "zzzzzzzz")
    assert "/docs" in answer.json()["error"]["message"]


def test_an_unknown_field_that_is_null_asks_for_nothing_and_is_no_fault(alice, body):
    content = json.dumps(body(mask=None))
    assert call("POST", "/v1/images/quotes", alice, content=content,
                headers={"Content-Type": "application/json"}).status_code == 200  # fmt: skip
