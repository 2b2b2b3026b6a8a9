"""Aliases as a tenant's clients meet them: defaults, leniency, the list of models, and what an answer names."""

import asyncio
import uuid

import httpx
import pytest
from openai import AsyncOpenAI

from billing.models import UsageRecord
from easel.asgi import application
from easel.jobs.models import Job
from easel.serving.aliases import alias_find, alias_remove, alias_set
from easel.serving.models import Route
from easel.serving.rollouts import rollout_start
from tenants.accounts import tenant_list_models
from tenants.models import ListedModels
from tests.conftest import NOW
from tests.easel.api.conftest import PNG, call, end_job
from tests.easel.api.test_adapters import weights
from tests.easel.api.test_images import generated
from tests.easel.api.test_refusals import left_nothing, refused
from tests.easel.api.test_streaming import events_of, streamed

JOBS, QUOTES = "/v1/jobs", "/v1/images/quotes"


@pytest.fixture
def alias(version):
    """Sets an alias of the test's model and returns its name: `alias(response_format="url")`."""

    def make(name=None, *, tenant=None, ignored=(), is_lenient=False, **defaults):
        name = name or f"gpt-image-{uuid.uuid4().hex[:8]}"
        terms = {"ignored": ignored, "is_lenient": is_lenient, "defaults": defaults, "now": NOW}
        return alias_set(name=name, model=version.model, tenant=tenant, **terms).name

    return make


def test_the_job_and_its_usage_name_the_real_model(alias, alice, version, create):
    job = create(alice, model=alias())
    assert job["model"] == version.model.name
    end_job(job["id"])
    assert call("GET", f"/v1/jobs/{job['id']}", alice).json()["model"] == version.model.name
    records = UsageRecord.objects.filter(job_id=job["id"])
    assert {record.dimensions["model"] for record in records if "model" in record.dimensions} == {version.model.name}


def test_defaults_apply_where_the_request_leaves_a_field_unset(alias, alice, body):
    name = alias(response_format="url", quality="low", size="128x256")
    answer = generated(alice, body(model=name, size=None)).json()
    assert (answer["quality"], answer["size"]) == ("low", "128x256")
    (image,) = answer["data"]
    assert "b64_json" not in image
    assert call("GET", image["url"].removeprefix("http://127.0.0.1:8000")).content == PNG


@pytest.mark.parametrize("size", [{"size": "256x128"}, {"width": 256, "height": 128}])
def test_a_request_beats_the_defaults(alias, alice, body, size):
    name = alias(response_format="url", quality="low", size="128x256")
    answer = generated(alice, body(model=name, quality="high", response_format="b64_json", **size)).json()
    assert (answer["quality"], answer["size"]) == ("high", "256x128")
    assert answer["data"][0].keys() == {"b64_json"}


def test_a_job_takes_the_defaults_that_it_has_fields_for(alias, alice, create):
    assert create(alice, model=alias(response_format="url", quality="low"))["quality"] == "low"


def test_a_streams_completed_event_has_the_url_and_the_warnings(alias, alice, body):
    name = alias(response_format="url", ignored=("style",))
    answer = streamed(
        alice,
        "/v1/images/generations",
        lambda job: end_job(str(job.id)),
        json=body(model=name, stream=True, style="vivid"),
    )
    ((kind, event),) = events_of(answer)
    assert (kind, "b64_json" in event) == ("image_generation.completed", False)
    assert call("GET", event["url"].removeprefix("http://127.0.0.1:8000")).content == PNG
    assert [one["param"] for one in event["warnings"]] == ["style"]


def test_an_alias_can_answer_with_base64_and_url_at_once(alias, alice, body):
    answer = generated(alice, body(model=alias(response_format="both"))).json()
    assert answer["data"][0].keys() == {"b64_json", "url"}


def test_fields_that_an_alias_ignores_are_ignored_with_a_warning_and_no_others(alias, alice, body, create):
    name = alias(ignored=("style", "input_fidelity"))
    job = create(alice, model=name, style="vivid", input_fidelity="high")
    assert [one["param"] for one in job["warnings"]] == ["input_fidelity", "style"]
    answer = call("POST", JOBS, alice, json=body(model=name, style="vivid", moderation="low"))
    refused(answer, 400, "unsupported_parameter", "moderation")


def test_a_lenient_alias_ignores_everything_that_is_no_contradiction(alias, alice, body, create):
    name = alias(is_lenient=True)
    assert len(create(alice, model=name, style="vivid", moderation="low", foo=1)["warnings"]) == 3
    refused(call("POST", JOBS, alice, json=body(model=name, steps=1, step=2)), 400, "invalid_value", "step")


def test_another_tenants_alias_is_not_found(alias, alice, bob, body):
    name = alias(tenant=alice.tenant)
    refused(call("POST", JOBS, bob, json=body(model=name)), 404, "model_not_found", "model")
    refused(call("GET", f"/v1/models/{name}", bob), 404, "model_not_found")
    assert name not in str(call("GET", "/v1/models", bob).json())
    left_nothing(bob)


def test_a_change_holds_from_the_next_request(alias, alice, body):
    name = alias(quality="low")
    first = call("POST", JOBS, alice, json=body(model=name)).json()
    alias(name, quality="hd")
    second = call("POST", JOBS, alice, json=body(model=name)).json()
    assert (first["quality"], second["quality"]) == ("low", "hd")
    alias_remove(alias_find(name=name, tenant=None))
    refused(call("POST", JOBS, alice, json=body(model=name)), 404, "model_not_found", "model")


def test_a_replay_of_a_removed_alias_is_the_same_job(alias, alice, body):
    options = {"json": body(model=alias()), "headers": {"Idempotency-Key": "order-7"}}
    first = call("POST", JOBS, alice, **options).json()
    alias_remove(alias_find(name=options["json"]["model"], tenant=None))
    assert call("POST", JOBS, alice, **options).json()["id"] == first["id"]
    assert Job.objects.filter(tenant=alice.tenant).count() == 1


def test_an_alias_of_an_unserved_model_is_refused_with_the_reason(alias, alice, body, version):
    name = alias()
    Route.objects.filter(model=version.model).delete()
    answer = call("POST", JOBS, alice, json=body(model=name))
    refused(answer, 404, "model_not_found", "model")
    assert "which no version serves any more" in answer.json()["error"]["message"]


def test_an_unknown_model_names_the_nearest(alias, alice, body):
    name = alias()
    answer = call("POST", JOBS, alice, json=body(model=f"{name}-hd"))
    refused(answer, 404, "model_not_found", "model")
    assert f"did you mean {name}?" in answer.json()["error"]["message"]


def test_models_lists_an_alias_as_a_model_with_alias_of(alias, alice, version):
    name = alias()
    listed = {one["id"]: one for one in call("GET", "/v1/models", alice).json()["data"]}
    assert (listed[name]["object"], listed[name]["alias_of"]) == ("model", version.model.name)
    assert listed[version.model.name]["alias_of"] is None
    assert listed[name]["side_max"] == listed[version.model.name]["side_max"]


def test_models_lists_what_the_tenants_policy_says(alias, alice, version, body):
    name = alias()
    tenant_list_models(tenant=alice.tenant, listed=ListedModels.ALIASES)
    listed = {one["id"] for one in call("GET", "/v1/models", alice).json()["data"]}
    assert name in listed
    assert version.model.name not in listed
    assert call("POST", QUOTES, alice, json=body()).status_code == 200  # a name that isn't listed works


@pytest.mark.parametrize("spelled", ["Tongyi-MAI/Z-Image-{}", "Tongyi-MAI%2FZ-Image-{}"])
def test_a_hub_id_is_found_with_its_slash_or_percent_encoded(alias, alice, version, spelled):
    unique = uuid.uuid4().hex[:8]
    alias(f"Tongyi-MAI/Z-Image-{unique}")
    answer = call("GET", "/v1/models/" + spelled.format(unique), alice)
    assert (answer.status_code, answer.json()["alias_of"]) == (200, version.model.name)


def test_openais_client_finds_and_uses_a_hub_id(alias, alice, version):
    name = alias(f"Tongyi-MAI/Z-Image-{uuid.uuid4().hex[:8]}")

    async def retrieve():
        transport = httpx.ASGITransport(app=application)
        async with (
            httpx.AsyncClient(transport=transport) as http,
            AsyncOpenAI(api_key=alice.secret, base_url="http://easel.test/v1", http_client=http) as client,
        ):
            return await client.models.retrieve(name), [model.id async for model in client.models.list()]

    model, listed = asyncio.run(retrieve())
    assert model.id == name
    assert name in listed


def test_quotes_adapters_experiments_and_rollouts_take_an_alias(alias, alice, version, second, plan, body):
    name = alias()
    assert call("POST", QUOTES, alice, json=body(model=name)).json()["model"] == version.model.name
    upload = {"data": {"name": "outline", "model": name}, "files": {"file": weights()}}
    assert call("POST", "/v1/adapters", alice, **upload).json()["model"] == version.model.name
    arms = [{"name": "a", "weight": 50}, {"name": "b", "weight": 50, "steps": 2}]
    experiment = call("POST", "/v1/experiments", alice, json={"name": "test", "model": name, "arms": arms}).json()
    assert experiment["model"] == version.model.name
    rollout_start(candidate=second, plan=plan, now=NOW)
    found = call("GET", f"/v1/rollouts?model={name}", alice).json()["data"]
    assert [one["model"] for one in found] == [version.model.name]


def test_a_request_by_an_alias_belongs_to_the_experiment_on_its_model(alias, alice, version, create):
    arms = [{"name": "a", "weight": 50, "steps": 2}, {"name": "b", "weight": 50, "steps": 2}]
    call("POST", "/v1/experiments", alice, json={"name": "test", "model": version.model.name, "arms": arms})
    assert create(alice, model=alias())["experiment"]["name"] == "test"
