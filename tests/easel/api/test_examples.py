"""The examples of answers in the OpenAPI document are recorded from real answers, by `RECORD=1 pytest` of this file."""

import asyncio
import json
import os
import uuid
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import pytest

from billing.invoices.statements import statement_draft, statement_final
from easel.catalog.models import Worker
from easel.serving.rollouts import rollout_start
from tenants.models import Quota
from tests.conftest import NOW
from tests.easel.api.conftest import ask, call, end_job
from tests.easel.api.described import validator, whole
from tests.easel.api.recorded import Examples, shape, written
from tests.easel.api.test_adapters import weights
from tests.easel.api.test_images import generated
from tests.easel.api.test_streaming import streamed
from tests.easel.batches.conftest import jsonl, turn, work

STORED = Path(str(files("easel.api").joinpath("answers.json")))
# These answer with the document itself, and with nothing.
WITHOUT = {("openapi_get", "200"), ("webhooks_delete", "204")}


@pytest.fixture
def examples(alice, version, pool, plan, second, body, create):
    """The answers of a tenant that makes every call of the API."""
    found = Examples(key_id=alice.key.key_id)

    def did(method, path, *, about="", **options):
        answer = call(method, path, alice, **options)
        assert answer.status_code < 300, answer.text
        found.add(answer, about=about)
        return answer.json() if answer.headers.get("content-type") == "application/json" else {}

    Worker.objects.filter(pool=pool).update(beat_at=datetime.now(UTC) + timedelta(days=30))
    limits = {"image_units_per_month": 1000, "concurrent_jobs_max": 50, "updated_at": NOW}
    Quota.objects.update_or_create(tenant=alice.tenant, api_key=None, defaults=limits)
    for path in ("/v1", "/v1/models", f"/v1/models/{version.model.name}"):
        did("GET", path, about=version.model.name)
    did("GET", "/v1/errors")
    did("POST", "/v1/images/quotes", json=body())
    found.add(generated(alice, body(response_format="url", seed=7)))
    wanted = body(stream=True, seed=8)
    found.add(streamed(alice, "/v1/images/generations", lambda job: end_job(str(job.id)), json=wanted))

    done, canceled = did("POST", "/v1/jobs", json=body(seed=9, metadata={"page": "home"}))["id"], create(alice)["id"]
    did("POST", f"/v1/jobs/{canceled}/cancel")
    end_job(done)
    did("GET", "/v1/jobs?limit=1")
    for method, path in (("GET", ""), ("GET", "/events"), ("DELETE", "/images")):
        did(method, f"/v1/jobs/{done}{path}")
    did("POST", f"/v1/jobs/{done}/feedback", json={"score": 0.8, "comment": "a good likeness"})
    did("DELETE", f"/v1/jobs/{done}")

    lines = [{"custom_id": "a", "method": "POST", "url": "/v1/images/generations", "body": body(seed=10)}]
    upload = {"file": ("requests.jsonl", jsonl(lines))}
    file = did("POST", "/v1/files", data={"purpose": "batch"}, files=upload)["id"]
    fields = {"input_file_id": file, "endpoint": "/v1/images/generations", "completion_window": "24h"}
    batch = did("POST", "/v1/batches", json=fields)["id"]
    turn()
    work(pool)
    turn()
    output = did("GET", f"/v1/batches/{batch}")["output_file_id"]
    for path in ("/v1/batches", "/v1/files", f"/v1/files/{file}"):
        did("GET", path)
    found.add(call("GET", f"/v1/files/{output}/content", alice, headers={"Accept": "application/jsonl"}))
    did("POST", f"/v1/batches/{did('POST', '/v1/batches', json=fields)['id']}/cancel")
    turn()
    did("DELETE", f"/v1/files/{output}")

    did("POST", "/v1/adapters", data={"name": "outline", "model": version.model.name}, files={"file": weights()})
    for method, path in (("GET", ""), ("GET", "/outline"), ("DELETE", "/outline")):
        did(method, f"/v1/adapters{path}")

    rollout_start(candidate=second, plan=plan, now=NOW)
    did("GET", "/v1/rollouts", about=version.model.name)
    arms = [{"name": "eight", "weight": 50}, {"name": "two", "weight": 50, "steps": 2}]
    did("POST", "/v1/experiments", json={"name": "steps", "model": version.model.name, "arms": arms})
    for method, path in (("GET", ""), ("GET", "/steps"), ("POST", "/steps/stop")):
        did(method, f"/v1/experiments{path}")

    for path in ("quota", "usage", "costs?group_by=model", "costs/outlook", "balance", "statements/current"):
        did("GET", f"/v1/{path}")
    for name in ("focus", "costs", "events"):
        did("GET", f"/v1/exports/{name}")
    budget = did("PUT", "/v1/budgets", json={"amount_micros": 50_000_000, "hard_stop": True})["id"]
    did("GET", "/v1/budgets")
    did("DELETE", f"/v1/budgets/{budget}")

    while not (statement := statement_draft(alice.tenant, now=datetime(2100, 1, 1, tzinfo=UTC))).total_micros:
        statement_final(statement, now=datetime.now(UTC))
    did("GET", "/v1/statements?limit=1")
    for path in ("", "/csv", "/lines/1/charges"):
        did("GET", f"/v1/statements/{statement.id}{path}")

    hook = did("POST", "/v1/webhooks", json={"url": "https://8.8.8.8/easel", "events": ["job.succeeded"]})["id"]
    tested = did("POST", f"/v1/webhooks/{hook}/test")["id"]
    for path in ("", f"/{hook}", f"/{hook}/deliveries"):
        did("GET", f"/v1/webhooks{path}")
    did("POST", f"/v1/webhooks/{hook}/deliveries/{tested}/replay")
    did("POST", f"/v1/webhooks/{hook}/rotate")
    did("PATCH", f"/v1/webhooks/{hook}", json={"enabled": False})

    found.add(call("POST", "/v1/images/generations", alice, json=body(size="17x17")))
    found.add(call("GET", f"/v1/jobs/{uuid.uuid4()}", alice))
    found.add(asyncio.run(ask("GET", "/v1/models", secret="easel_sk_wrong")))
    answers = json.loads(json.dumps(found.answers))
    if os.environ.get("RECORD") == "1":
        STORED.write_text(written(answers))
    return answers


def test_the_stored_examples_have_the_fields_of_real_answers(examples):
    assert shape(json.loads(STORED.read_text())) == shape(examples)


def test_every_success_of_every_operation_has_an_example():
    assert [name for name in _successes() if name not in WITHOUT and not _examples_of(*name)] == []


def test_the_examples_of_answers_are_as_described():
    shown = 0
    for operation in _operations():
        for response in operation["responses"].values():
            for content in response.get("content", {}).values():
                for example in content.get("examples", {}).values():
                    shown += 1
                    if not isinstance(example["value"], str):
                        validator(json.dumps(content["schema"])).validate(example["value"])
    assert shown >= 60


def _operations():
    return [one for methods in whole()["paths"].values() for one in methods.values()]


def _successes():
    return [
        (operation["operationId"], status)
        for operation in _operations()
        for status in operation["responses"]
        if int(status) < 300
    ]


def _examples_of(name, status):
    [operation] = [one for one in _operations() if one["operationId"] == name]
    return [one for one in operation["responses"][status]["content"].values() if "examples" in one]
