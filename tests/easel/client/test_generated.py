"""The generated half of the client is what the OpenAPI document says now."""

import pytest

from clients import generate
from tests.easel.api.conftest import call


@pytest.fixture(scope="module")
def document():
    return call("GET", "/v1/openapi.json").json()


def test_the_generated_modules_are_those_of_the_document(document):
    for name, text in generate.generated(document).items():
        assert (generate.PACKAGE / name).read_text() == text, f"run scripts/client: {name} is of an older document"


def test_every_operation_that_can_succeed_has_a_method(document):
    from easel_client import api

    operations = [
        operation["operationId"].partition("_")
        for methods in document["paths"].values()
        for method, operation in methods.items()
        if method != "parameters" and any(status.startswith("2") for status in operation["responses"])
    ]
    assert len(operations) > 40
    assert not [name for name in operations if not hasattr(getattr(api, name[0].capitalize()), name[2] or "get")]


def types_of(schemas, paths=None):
    """The text of the types and calls of a document with these schemas."""
    return generate.generated({"components": {"schemas": schemas}, "paths": paths or {}})


def operation(schema, **more):
    content = {"application/json": {"schema": schema}}
    return {"get": {"operationId": "things_get", "responses": {"200": {"content": content}}, **more}}


def test_a_schema_becomes_a_class_whose_optional_fields_may_be_absent():
    schema = {
        "type": "object",
        "description": "A thing.",
        "properties": {
            "id": {"type": "string"},
            "size": {"type": ["integer", "null"]},
            "state": {"enum": ["on", "off", None]},
            "best": {"oneOf": [{"$ref": "#/components/schemas/Part"}, {"type": "null"}]},
            "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Part"}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        },
        "required": ["id", "size"],
    }
    part = {"type": "object", "properties": {"name": {"type": "string", "nullable": True}}, "required": ["name"]}
    path = operation({"$ref": "#/components/schemas/Thing"})
    types = types_of({"Thing": schema, "Part": part}, {"/v1/things": path})["types.py"]
    assert "class Part(TypedDict):\n    name: str | None\n" in types
    expected = (
        'class Thing(TypedDict):\n    """A thing."""\n\n    id: str\n    size: int | None\n'
        '    state: NotRequired[Literal["on", "off"] | None]\n    best: NotRequired[Part | None]\n'
        "    parts: NotRequired[list[Part]]\n"
        "    labels: NotRequired[dict[str, str]]\n"
    )
    assert expected in types.replace('"""\n    id', '"""\n\n    id')


def test_a_path_is_quoted_and_a_query_has_its_types():
    parameters = [
        {"in": "path", "name": "thing_id", "schema": {"type": "string"}},
        {"in": "query", "name": "after", "schema": {"type": "string", "format": "date"}, "description": "The first."},
        {"in": "header", "name": "Idempotency-Key", "schema": {"type": "string"}},
        {"in": "header", "name": "X-Request-Id", "schema": {"type": "string"}},
    ]
    modules = types_of({}, {"/v1/things/{thing_id}": operation({"type": "object"}, parameters=parameters)})
    assert 'after: Annotated[str | date | None, "The first."]' in modules["types.py"]
    assert "def get(\n        self, thing_id: str, *, idempotency_key: str | None = None, **query" in modules["api.py"]
    assert 'f"/v1/things/{segment(thing_id)}"' in modules["api.py"]
    assert "X-Request-Id" not in modules["api.py"]
