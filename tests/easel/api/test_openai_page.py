"""docs/openai.md: every field of OpenAI's Images API, as the installed client has it, and what Easel does with it."""

import asyncio
import json
import types
import uuid
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from openai.types import Image, ImageGenCompletedEvent, ImageGenPartialImageEvent, ImagesResponse, Model
from openai.types.image_generate_params import ImageGenerateParamsBase, ImageGenerateParamsStreaming
from pydantic import BaseModel

from easel.api.images import stream_partial_json
from easel.catalog.models import ModelVersion, Pool
from easel.jobs.models import Job
from easel.seed import LIMITS
from easel.serving.versions import version_register
from tenants.keys import key_issue
from tests.conftest import NOW, PEPPER, TRANSFORMER, Customer
from tests.easel.api.conftest import ask, call, end_job
from tests.easel.api.test_streaming import IMAGES, beat, events_of, streamed
from tests.written_tables import check_table

PAGE = "docs/openai.md"
# What OpenAI does with a field, by its reference of the Images API.
OPENAI = {
    "prompt": "describes the image, up to 32,000 characters",
    "background": "chooses between a transparent and an opaque background",
    "complexity": "sets how much detail a drawing in SVG has",
    "frame_count": "sets the frames of an animation",
    "frame_duration_ms": "sets how long a frame of an animation is shown",
    "model": "names the model",
    "moderation": "chooses a weaker filter of prompts",
    "n": "sets the number of images, 1 to 10",
    "output_compression": "sets the compression of WebP and JPEG, 0 to 100",
    "output_format": "chooses the format of the file",
    "partial_images": "sets the number of previews in a stream, 0 to 3",
    "quality": "chooses how much work goes into the image",
    "response_format": "chooses between base64 and a URL, for the models of DALL-E",
    "safety_identifier": "names the end user, for its own checks",
    "size": "sets width and height",
    "style": "chooses a style of DALL-E 3",
    "svg": "has options for drawings in SVG",
    "user": "names the end user; the older name of safety_identifier",
    "stream": "sends events instead of one answer",
}
# Values of the fields whose type doesn't list them; beside each what else it needs.
SAMPLES: dict[str, list[Any]] = {
    "prompt": ["a red circle"],
    "frame_count": [8],
    "frame_duration_ms": [100],
    "n": [1, 10],
    "output_compression": [0, 100],
    "partial_images": [0, 3],
    "safety_identifier": ["user-7"],
    "svg": [{}],
    "user": ["user-7"],
    "stream": [False, True],
}
NEEDS: dict[str, dict[str, Any]] = {"partial_images": {"stream": True}}


@pytest.fixture
def model(pool: Pool, prices: None, tmp_path: Path) -> ModelVersion:
    """A model of this test alone, with the limits of Z-Image-Turbo."""
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(TRANSFORMER))
    name = f"turbo-{uuid.uuid4().hex[:12]}"
    return version_register(model_name=name, checkpoint=str(tmp_path), pool=pool, limits=LIMITS, now=NOW)


def literals(annotation: Any) -> list[Any]:
    """The values that a type lists, within unions too."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return [value for part in get_args(annotation) for value in literals(part)]
    return []


def fields() -> dict[str, list[Any]]:
    """OpenAI's fields of a generation, each with values to send."""
    hints = {**get_type_hints(ImageGenerateParamsBase), **get_type_hints(ImageGenerateParamsStreaming)}
    return {name: SAMPLES.get(name) or literals(hint) for name, hint in hints.items()}


def outcome(body: dict[str, Any], name: str, secret: str) -> str:
    """What a quote does with a field: `takes`, `ignores`, or the code of its refusal."""
    answer = asyncio.run(ask("POST", "/v1/images/quotes", secret=secret, json=body))
    if answer.status_code != 200:
        code: str = answer.json()["error"]["code"]
        return f"refuses (`{code}`)"
    warned = {warning["param"] for warning in answer.json().get("warnings") or ()}
    return "ignores" if name in warned else "takes"


def said(outcomes: dict[str, list[str]]) -> str:
    """`takes a, b; refuses (code) c`, or the verb alone where it holds of every value."""
    if len(outcomes) == 1:
        return next(iter(outcomes))
    return "; ".join(f"{verb} {', '.join(values)}" for verb, values in outcomes.items())


def test_the_table_of_requests_is_what_easel_does(alice: Customer, model: ModelVersion):
    _, lenient = key_issue(project=alice.project, pepper=PEPPER, now=NOW, is_lenient=True)
    base = {"prompt": "a red circle", "model": model.model.name}
    found = fields()
    assert found.keys() == OPENAI.keys(), "describe the new fields of the client in OPENAI"
    rows = []
    for name, values in found.items():
        if name == "model":  # depends on the models and aliases of an installation
            easel = "takes the names of `GET /v1/models`, OpenAI's where an operator makes them an alias"
            rows.append([f"`{name}`", OPENAI[name], f"{easel}; refuses others (`model_not_found`)", "the same"])
            continue
        by_key = []
        for secret in (alice.secret, lenient):
            outcomes: dict[str, list[str]] = {}
            for value in values:
                body = base | NEEDS.get(name, {}) | {name: value}
                outcomes.setdefault(outcome(body, name, secret), []).append(f"`{json.dumps(value).strip(chr(34))}`")
            by_key.append(said(outcomes))
        strict, loose = by_key
        rows.append([f"`{name}`", OPENAI[name], strict, "the same" if loose == strict else loose])
    check_table(PAGE, "request", ("field", "OpenAI", "Easel", "a lenient key"), rows)


def test_an_unknown_model_is_refused_by_the_code_of_the_table(alice: Customer):
    answer = call("POST", "/v1/images/quotes", alice, json={"prompt": "a red circle", "model": "midjourney"})
    assert answer.json()["error"]["code"] == "model_not_found"


def rows_of(kind: type[BaseModel], found: dict[str, Any]) -> list[list[str]]:
    """A row for each field of a type of the client's: is it in an answer of Easel's?"""
    return [[f"`{name}`", "given" if found.get(name) is not None else "left out"] for name in kind.model_fields]


def test_the_table_of_answers_is_what_easel_sends(alice: Customer, body):
    found = streamed(alice, IMAGES, lambda job: end_job(str(job.id)), json=body(response_format="both")).json()
    ImagesResponse.model_validate(found)
    images = [[f"`data[].{name[1:]}", said] for name, said in rows_of(Image, found["data"][0])]
    own = {name for name in ("tier", "seed", "job_id") if name in found}
    own |= {name for name in ("cost", "cost_details", "image_units", "gpu_seconds", "cached") if name in found["usage"]}
    assert own == {"tier", "seed", "job_id", "cost", "cost_details", "image_units", "gpu_seconds", "cached"}
    check_table(PAGE, "answer", ("field", "Easel"), [*rows_of(ImagesResponse, found), *images])


def test_the_table_of_events_is_what_easel_sends(alice: Customer, body):
    partial: dict[str, Any] = {}

    def preview_and_end(job: Job) -> None:
        beat(job, steps_done=3, previews=((0, 0),))
        partial.update(stream_partial_json(job, job.attempts.get(), index=0, number=0))
        end_job(str(job.id))

    answer = streamed(alice, IMAGES, preview_and_end, json=body(stream=True, partial_images=1))
    *_, (_, completed) = events_of(answer)
    ImageGenPartialImageEvent.model_validate(partial)
    ImageGenCompletedEvent.model_validate(completed, strict=False)
    both = {"partial_image": (ImageGenPartialImageEvent, partial), "completed": (ImageGenCompletedEvent, completed)}
    rows = [
        [f"`image_generation.{event}`", *row] for event, (kind, found) in both.items() for row in rows_of(kind, found)
    ]
    check_table(PAGE, "events", ("event", "field", "Easel"), rows)


def test_the_table_of_models_is_what_easel_sends(alice: Customer, model: ModelVersion):
    found = call("GET", f"/v1/models/{model.model.name}", alice).json()
    Model.model_validate(found)
    check_table(PAGE, "model", ("field", "Easel"), rows_of(Model, found))
