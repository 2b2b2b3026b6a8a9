"""JSON Schemas of what calls take and answer, in which a part that has a name is a shared component."""

import re
from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode
from pydantic_core import core_schema

from easel.api.declaration import Input, Schema, UrlQuery, nullable

REF = "#/components/schemas/"


class _Generator(GenerateJsonSchema):
    def nullable_schema(self, schema: core_schema.NullableSchema) -> Schema:
        return nullable(self.generate_inner(schema["schema"]))

    def literal_schema(self, schema: core_schema.LiteralSchema) -> Schema:
        return {"type": "string", "enum": schema["expected"]}

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> Schema:
        if schema.get("default") is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def schemas_of(declared: Iterable[Any]) -> tuple[dict[Any, Schema], dict[str, Schema]]:
    """Return the schema of each declaration, which refers to the components that come second, by their names."""

    def mode(one: Any) -> JsonSchemaMode:
        return "validation" if isinstance(one, type) and issubclass(one, Input) else "serialization"

    adapters = [(one, mode(one), TypeAdapter(one)) for one in dict.fromkeys(declared)]
    found, rest = TypeAdapter.json_schemas(adapters, schema_generator=_Generator, ref_template=REF + "{model}")
    parts: dict[str, Schema] = rest.get("$defs", {})
    names = {name: component_name(name) for name in parts}
    doubled = {name for name in names.values() if list(names.values()).count(name) > 1}
    assert not doubled, f"two declarations would be the component {doubled}: rename one"
    schemas = {one: _tidy(schema, names) for (one, _), schema in found.items()}
    components = {names[name]: _tidy(part, names) for name, part in parts.items()}
    return schemas, dict(sorted(components.items()))


def query_fields(query: type[UrlQuery]) -> tuple[dict[str, Schema], list[str]]:
    """Return the schema of each field of a query string, and the names of those that are required."""
    whole = _tidy(TypeAdapter(query).json_schema(schema_generator=_Generator, mode="validation"), {})
    return whole.get("properties", {}), whole.get("required", [])


def component_name(name: str) -> str:
    """Return the published name of a declaration: `Job` of `JobAnswer`, `JobList` of `Listed[JobAnswer]`."""
    name = re.sub(r"(\w+?)_(\w+?)(?:Answer)?_", lambda found: f"{found[2]}List", name)
    return name.removesuffix("Answer")


def _tidy(node: Any, names: dict[str, str]) -> Any:
    """Rename the components, and leave titles out, which repeat names."""
    if isinstance(node, list):
        return [_tidy(one, names) for one in node]
    if not isinstance(node, dict):
        return node
    if isinstance(ref := node.get("$ref"), str):
        return {**node, "$ref": REF + names[ref.removeprefix(REF)]}
    return {
        name: _tidy(value, names)
        for name, value in node.items()
        if not (name == "title" and isinstance(value, str)) and not (name == "additionalProperties" and value is True)
    }
