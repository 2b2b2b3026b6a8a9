"""Every operation of the OpenAPI document with every kind of another tenant's object: nothing is found or changed.

The tables of `objects.py` say what each path parameter and each text of a body or a query can name. An operation, a
parameter or a text that has no row there fails.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from tenants.keys import key_issue
from tenants.models import Scope
from tests.conftest import NOW, PEPPER, Customer
from tests.easel.api.conftest import call
from tests.easel.api.described import whole
from tests.easel.api.objects import FILTERS, KINDS, PARTS, REFERENCES, objects_of, rows_of
from tests.easel.catalog.conftest import weights  # noqa: F401 - a fixture
from tests.easel.privacy.conftest import any_store, furnish, secret_of  # noqa: F401 - fixtures

BODIES = {"jobs_feedback": {"score": 0.5}, "webhooks_change": {"enabled": False}}
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


@pytest.fixture(autouse=True)
def without_row_security(monkeypatch):
    """PostgreSQL would hide the rows that a look-up without its tenant finds: the first wall is attacked alone."""
    monkeypatch.setattr("easel.api.resource.scope_enter", lambda tenant_id: None)


@pytest.fixture
def objects(alice, furnish) -> dict[str, str]:  # noqa: F811 - the fixture
    return objects_of(alice, furnish)


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
