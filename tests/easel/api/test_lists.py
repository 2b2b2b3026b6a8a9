"""Every list of the API has the fields by which OpenAI's clients turn its pages."""

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from openai import AsyncOpenAI, BaseModel
from openai.pagination import AsyncCursorPage

from billing.invoices.statements import statement_draft, statement_final
from easel.asgi import application
from easel.serving.rollouts import rollout_roll_back, rollout_start
from tests.conftest import NOW
from tests.easel.api.conftest import call, end_job
from tests.easel.api.test_adapters import weights

LATER = datetime(2100, 1, 1, tzinfo=UTC)


def lists(document):
    """The paths that answer GET with a list, each with its parameters."""

    def whole(part):
        while "$ref" in part:
            _, _, kind, name = part["$ref"].split("/")
            part = document["components"][kind][name]
        return part

    for path, methods in document["paths"].items():
        content = whole(methods.get("get", {}).get("responses", {}).get("200", {})).get("content", {})
        fields = whole(content.get("application/json", {}).get("schema", {})).get("properties", {})
        if fields.get("data", {}).get("type") == "array" and path not in ("/v1/costs", "/v1/usage"):  # which are sums
            yield path, {whole(parameter)["name"] for parameter in methods["get"].get("parameters", ())}


@pytest.fixture
def ids(alice, version, second, plan, create):
    """What the paths of lists name, of a tenant with three of everything that it can have several of."""
    for number in range(3):
        end_job(create(alice)["id"])
        fields = {"name": f"a{number}", "model": version.model.name}
        assert call("POST", "/v1/adapters", alice, data=fields, files={"file": weights()}).status_code == 201
        rollout = rollout_start(candidate=second, plan=plan, now=NOW + timedelta(hours=number))
        rollout_roll_back(rollout, verdict="a test", now=NOW + timedelta(hours=number, minutes=1))
        arms = [{"name": "a", "weight": 50}, {"name": "b", "weight": 50, "steps": 2}]
        body = {"name": f"e{number}", "model": version.model.name, "arms": arms}
        assert call("POST", "/v1/experiments", alice, json=body).status_code == 201
        call("POST", f"/v1/experiments/e{number}/stop", alice)
        owner = [{}, {"project": "default"}, {"api_key": alice.key.key_id}][number]
        assert call("PUT", "/v1/budgets", alice, json={"amount_micros": 10_000_000, **owner}).status_code == 200
        hook = call("POST", "/v1/webhooks", alice, json={"url": f"https://hooks.example/{number}"}).json()
        for _ in range(3):
            assert call("POST", f"/v1/webhooks/{hook['id']}/test", alice).status_code == 202
    while not (statement := statement_draft(alice.tenant, now=LATER)).total_micros:
        statement_final(statement, now=datetime.now(UTC))
    line = statement.lines.get(meter="gpu_second")
    return {"webhook_id": hook["id"], "statement_id": statement.id, "position": line.position}


def test_every_list_has_openais_fields_and_can_be_read_page_by_page(alice, ids):
    pages = {}
    for path, parameters in lists(call("GET", "/v1/openapi.json").json()):
        whole = call("GET", path.format(**ids), alice).json()
        assert whole["object"] == "list", path
        named = [row.get("id") for row in whole["data"]]
        ends = (named[0], named[-1]) if named else (None, None)
        assert (whole["first_id"], whole["last_id"], whole["has_more"]) == (*ends, False), path
        pages[path] = 0
        after, seen = None, []
        while {"limit", "after"} <= parameters:
            query = {"limit": "1"} | ({"after": after} if after else {})
            page = call("GET", path.format(**ids), alice, params=query).json()
            assert page["first_id"] == page["last_id"] == (page["data"][0]["id"] if page["data"] else None)
            seen += [row["id"] for row in page["data"]]
            pages[path] += 1
            if not page["has_more"]:
                assert seen == named, path
                break
            after = page["last_id"]
    several = {path for path, count in pages.items() if count >= 3}
    assert several >= {
        "/v1/jobs", "/v1/adapters", "/v1/experiments", "/v1/rollouts", "/v1/budgets", "/v1/webhooks", "/v1/statements",
        "/v1/webhooks/{webhook_id}/deliveries", "/v1/statements/{statement_id}/lines/{position}/charges",
    }  # fmt: skip
    assert {"/v1/models", "/v1/quota"} <= set(pages)


@pytest.mark.parametrize("path", ["adapters", "experiments", "budgets", "jobs", "webhooks", "statements", "rollouts"])
def test_a_page_after_what_is_not_there_is_refused(alice, path):
    answer = call("GET", f"/v1/{path}?after=00000000-0000-0000-0000-000000000007", alice)
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "invalid_request_error")


def test_a_page_after_another_tenants_row_is_refused(alice, bob):
    made = call("PUT", "/v1/budgets", alice, json={"amount_micros": 1}).json()
    assert call("GET", f"/v1/budgets?after={made['id']}", bob).json()["error"]["code"] == "budget_not_found"


class ListedJob(BaseModel):
    id: str


def test_openais_client_turns_the_pages_by_itself(alice, create, version):
    made = [create(alice)["id"] for _ in range(5)]

    async def read():
        transport = httpx.ASGITransport(app=application)
        async with httpx.AsyncClient(transport=transport) as http:
            client = AsyncOpenAI(base_url="http://easel.test/v1", api_key=alice.secret, http_client=http)
            models = [model.id async for model in client.models.list()]
            first = await client.get("/jobs", cast_to=AsyncCursorPage[ListedJob], options={"params": {"limit": 2}})
            pages = client.get_api_list(
                "/jobs", page=AsyncCursorPage[ListedJob], model=ListedJob, options={"params": {"limit": 2}}
            )
            return models, first, [job.id async for job in pages]

    models, first, jobs = asyncio.run(read())
    assert version.model.name in models
    assert (len(first.data), first.has_more) == (2, True)
    assert jobs == made[::-1]
