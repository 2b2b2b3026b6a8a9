"""Every operation of the OpenAPI document with every kind of another tenant's object: nothing is found or changed.

The tables say what each path parameter and each text of a body or a query can name. An operation, a parameter or a text
that has no row fails.
"""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.apps import apps
from django.db.models import ForeignKey, Model

from billing.invoices.statements import statement_draft, statement_final
from tenants.accounts import project_create
from tenants.keys import key_issue
from tenants.models import Scope, Tenant
from tests.conftest import NOW, PEPPER, Customer
from tests.easel.api.conftest import call
from tests.easel.api.described import whole
from tests.easel.catalog.conftest import weights  # noqa: F401 - a fixture
from tests.easel.privacy.conftest import any_store, furnish, secret_of  # noqa: F401 - fixtures

LATER = datetime(2100, 1, 1, tzinfo=UTC)

# What an identifier in a path names, by its parameter and, where its name is that of more than one kind, by its path.
KINDS = {
    "file_id": "file",
    "batch_id": "batch",
    "job_id": "job",
    "budget_id": "budget",
    "statement_id": "statement",
    "webhook_id": "webhook",
    "delivery_id": "delivery",
    "/v1/experiments/{name}": "experiment",
    "/v1/experiments/{name}/stop": "experiment",
    "/v1/adapters/{name}": "adapter",
    "/v1/models/{name}": "alias",
}
PARTS = {"position": "1", "form": "html"}  # of an object that the path names already
BODIES = {"jobs_feedback": {"score": 0.5}, "webhooks_change": {"enabled": False}}

# Texts that name an object, with its kind, and those that name none.
GENERATION = {"model": "alias", "adapters": "adapter", "project": "project"}
REFERENCES = {
    "images_generations": GENERATION,
    "images_quotes": GENERATION,
    "jobs_create": GENERATION,
    "batches_create": {"input_file_id": "file"},
    "experiments_start": {"model": "alias", "arms": "adapter"},
    "adapters_upload": {"model": "alias"},
    "budgets_set": {"project": "project", "api_key": "key"},
    "files_list": {"after": "file"},
    "batches_list": {"after": "batch"},
    "jobs_list": {"after": "job"},
    "experiments_list": {"after": "experiment id"},
    "rollouts_list": {"after": "experiment id", "model": "alias"},
    "adapters_list": {"after": "adapter id"},
    "budgets_list": {"after": "budget"},
    "statements_list": {"after": "statement"},
    "statements_line_charges": {"after": "job"},
    "webhooks_list": {"after": "webhook"},
    "webhooks_deliveries": {"after": "delivery"},
}
FILTERS = {("rollouts_list", "model")}  # another tenant's name selects nothing
TEXTS = (
    *(
        "prompt",
        "negative_prompt",
        "size",
        "style",
        "user",
        "metadata",
        "moderation",
        "safety_identifier",
        "background",
    ),
    *("comment", "completion_window", "name", "file", "currency", "events", "url", "start", "end", "group_by"),
)


@pytest.fixture
def objects(alice, version, furnish) -> dict[str, str]:  # noqa: F811 - the fixture
    """One object of each kind of Alice, as her own calls name it."""
    furnish(alice)
    secret = secret_of(alice)
    _, alice.secret = key_issue(project=alice.project, scopes=Scope.values, pepper=PEPPER, now=NOW)
    project = project_create(tenant=alice.tenant, slug=f"{secret}-project", now=NOW)
    webhook = listed("/v1/webhooks", alice)["id"]
    assert call("POST", f"/v1/webhooks/{webhook}/test", alice).status_code == 202
    assert call("PUT", "/v1/budgets", alice, json={"amount_micros": 5_000_000}).status_code == 200
    while not (draft := statement_draft(alice.tenant, now=LATER)).total_micros:
        statement_final(draft, now=datetime.now(UTC))
    return {
        "file": listed("/v1/files", alice)["id"],
        "batch": listed("/v1/batches", alice)["id"],
        "job": next(job["id"] for job in call("GET", "/v1/jobs", alice).json()["data"] if job["images"]),
        "experiment": f"{secret}-test",
        "adapter": f"{secret}-style",
        "alias": secret,
        "budget": listed("/v1/budgets", alice)["id"],
        "statement": str(draft.id),
        "webhook": webhook,
        "delivery": listed(f"/v1/webhooks/{webhook}/deliveries", alice)["id"],
        "key": alice.key.key_id,
        "project": project.slug,
        "experiment id": listed("/v1/experiments", alice)["id"],
        "adapter id": listed("/v1/adapters", alice)["id"],
    }


def listed(path: str, customer: Customer) -> dict[str, Any]:
    return call("GET", path, customer).json()["data"][0]


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of each operation; reads come first, and deletions of a whole last."""
    found = [(m.upper(), path, one) for path, methods in whole()["paths"].items() for m, one in methods.items()]
    yield from sorted(found, key=lambda one: (one[0] != "GET", one[0] == "DELETE", -len(one[1])))


def owners() -> Iterator[tuple[str, str, dict[str, Any], list[str]]]:
    """The operations whose path names objects, with the parameters that do."""
    for method, path, operation in operations():
        names = [one["name"] for one in operation["parameters"] if one.get("in") == "path"]
        if objects_named := [name for name in names if name not in PARTS]:
            yield method, path, operation, objects_named


def asked(method: str, path: str, operation: dict[str, Any], ids: dict[str, str], caller: Customer) -> Any:
    body = BODIES.get(operation["operationId"])
    return call(method, path.format_map(PARTS | ids), caller, **({"json": body} if body else {}))


def test_no_path_finds_or_changes_an_object_of_another_tenant(alice, bob, objects):
    _, bob.secret = key_issue(project=bob.project, scopes=Scope.values, pepper=PEPPER, now=NOW)
    own_webhook = call("POST", "/v1/webhooks", bob, json={"url": "https://hooks.example/bob"}).json()["id"]
    before = rows_of(alice.tenant)
    assert len(before) > 25
    for method, path, operation, names in owners():
        for kind, found in objects.items():
            attempts = [dict.fromkeys(names, found)]
            if len(names) > 1:
                attempts.append({names[0]: own_webhook, names[1]: found})
            for ids in attempts:
                answer = asked(method, path, operation, ids, bob)
                assert answer.status_code == 404, f"{operation['operationId']} with a {kind}: {answer.text}"
                assert secret_of(alice) not in answer.text.replace(found, "")
    assert rows_of(alice.tenant) == before
    # The same calls are good calls of their owner.
    for method, path, operation, names in owners():
        ids = {name: objects[KINDS.get(name) or KINDS[path]] for name in names}
        assert asked(method, path, operation, ids, alice).status_code != 404, operation["operationId"]


def test_no_text_of_a_body_or_a_query_names_an_object_of_another_tenant(alice, bob, objects, version, body):
    _, bob.secret = key_issue(project=bob.project, scopes=Scope.values, pepper=PEPPER, now=NOW)
    own_webhook = call("POST", "/v1/webhooks", bob, json={"url": "https://hooks.example/bob"}).json()["id"]
    arms = [{"name": name, "weight": 50} for name in ("a", "b")]
    least = {
        "batches_create": {"endpoint": "/v1/images/generations", "completion_window": "1h"},
        "experiments_start": {"name": "mine", "model": version.model.name, "arms": arms},
        "budgets_set": {"amount_micros": 1_000_000},
    }
    before = rows_of(alice.tenant)
    for method, path, operation in operations():
        name, in_query = operation["operationId"], queries(operation)
        for field, kind in texts_of(operation):
            if kind is None:
                continue
            value: Any = objects[kind]
            if field == "adapters":
                value = [{"name": value}]
            elif field == "arms":
                value = [{"name": "a", "weight": 50, "adapters": [{"name": value}]}, {"name": "b", "weight": 50}]
            if field in in_query:
                given: dict[str, Any] = {"params": {field: value}}
            elif name == "adapters_upload":
                given = {"data": {"name": "mine", field: value}, "files": {"file": b"x"}}
            else:
                given = {"json": {**least.get(name, body()), field: value}}
            ids = {"webhook_id": own_webhook, "statement_id": objects["statement"]}
            answer = call(method, path.format_map(PARTS | ids), bob, **given)
            what = f"{name} with {field} of a {kind}: {answer.text}"
            if (name, field) in FILTERS:
                assert answer.json()["data"] == [], what
            else:
                assert answer.status_code == 404, what
                assert answer.json()["error"]["code"] != "not_found" or field in answer.json()["error"]["param"], what
            assert secret_of(alice) not in answer.text.replace(objects[kind], "")
    assert rows_of(alice.tenant) == before


def texts_of(operation: dict[str, Any]) -> list[tuple[str, str | None]]:
    """The fields of a body and a query that hold text, each with the kind of object that it names, if any."""
    name, found = operation["operationId"], []
    for field in sorted({*queries(operation), *fields(operation)}):
        kind = REFERENCES.get(name, {}).get(field)
        assert kind or field in TEXTS, f"{name} takes {field!r}: say in this file what it can name"
        found.append((field, kind))
    return found


def queries(operation: dict[str, Any]) -> set[str]:
    return {one["name"] for one in operation["parameters"] if one.get("in") == "query" and has_text(one["schema"])}


def fields(operation: dict[str, Any]) -> set[str]:
    found = set()
    for content in operation.get("requestBody", {}).get("content", {}).values():
        found |= {name for name, field in resolved(content["schema"])["properties"].items() if has_text(field)}
    return found


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return whole()["components"]["schemas"][name] if name else schema


def has_text(schema: dict[str, Any]) -> bool:
    """Whether a value of this schema can hold a text that the caller chooses."""
    schema = resolved(schema)
    parts = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("properties", {}).values()]
    parts += [schema[name] for name in ("items", "additionalProperties") if isinstance(schema.get(name), dict)]
    is_text = "string" in schema.get("type", ()) and not {"enum", "const"} & schema.keys()
    return is_text or any(has_text(part) for part in parts)


def rows_of(tenant: Tenant) -> dict[str, tuple[int, str]]:
    """Number and digest of the rows of each table that belong to the tenant, by the tables' foreign keys."""
    found = {}
    for model in apps.get_models():
        if (way := way_to_tenant(model, ())) is not None:
            rows = sorted(map(repr, model._base_manager.filter(**{way: tenant.pk}).values_list()))
            if rows:
                found[model._meta.db_table] = (len(rows), hashlib.sha256("\n".join(rows).encode()).hexdigest())
    return found


def way_to_tenant(model: type[Model], seen: tuple[type[Model], ...]) -> str | None:
    """The shortest way of foreign keys to the tenant, as a lookup of Django."""
    if model is Tenant:
        return "pk"
    ways = [
        f"{field.name}__{rest}"
        for field in model._meta.fields
        if isinstance(field, ForeignKey) and field.related_model not in (model, *seen)
        if (rest := way_to_tenant(field.related_model, (*seen, model))) is not None
    ]
    return min(ways, key=lambda way: way.count("__"), default=None)
