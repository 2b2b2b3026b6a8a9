"""Writes the generated half of the Python client, `easel_client/types.py` and `api.py`, from the OpenAPI document.

A schema becomes a `TypedDict`, an operation `jobs_create` the method `create` of the class `Jobs`. Answers stay the
JSON that they are, so that a field which a later server adds is there too. `scripts/client` runs this module.
"""

import asyncio
import json
import keyword
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

Schema = Mapping[str, Any]
PACKAGE = Path(__file__).parent / "python/easel_client"
_METHODS = ("get", "post", "put", "patch", "delete")
_SCALARS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_TYPES_HEAD = '''"""Bodies, queries and answers of the API. `scripts/client` writes this module."""

from datetime import date
from typing import Annotated, Any, Literal, NotRequired, Required, TypedDict

from easel_client.transport import FileContent
'''
_API_HEAD = '''"""Calls of the API, a class per resource. `scripts/client` writes this module."""

# mypy: disable-error-code="no-any-return"

from collections.abc import Iterator
from typing import Any, Literal, Unpack

from easel_client import types
from easel_client.transport import Download, Event, Transport, new_key, segment


class Resource:
    """Calls of one kind."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
'''


def served_document() -> dict[str, Any]:
    """Return the OpenAPI document as the API serves it."""
    from easel.asgi import application

    app: Any = application

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://easel") as client:
            return await client.get("/v1/openapi.json")

    document: dict[str, Any] = asyncio.run(ask()).raise_for_status().json()
    return document


def generated(document: Schema) -> dict[str, str]:
    """Return the text of each generated module."""
    writer = _Writer(document)
    api = writer.api()
    texts = {"types.py": _TYPES_HEAD + "\n\n" + "\n\n".join(writer.classes.values()), "api.py": api}
    return {name: _formatted(text) for name, text in texts.items()}


def _formatted(text: str) -> str:
    ruff = Path(sys.executable).parent / "ruff"
    for command in (["check", "--fix", "--quiet", "--select", "I,F401"], ["format", "--quiet"]):
        argv = [str(ruff), *command, "--stdin-filename", str(PACKAGE / "generated.py"), "-"]
        text = subprocess.run(argv, input=text, capture_output=True, text=True, check=True).stdout  # noqa: S603
    return text


@dataclass
class _Writer:
    document: Schema
    classes: dict[str, str] = field(default_factory=dict)  # the text of each class by its name, in order
    _names: dict[str, str] = field(default_factory=dict)  # the class of each schema that is written in place

    # --- types

    def annotation(self, schema: Schema, name: str, *, is_input: bool) -> str:
        """Return the type of what a schema describes. `name` is for a class that has none in the document."""
        found = self._without_null(schema, name, is_input=is_input)
        types = schema.get("type")
        may_be_null = schema.get("nullable") or (isinstance(types, list) and "null" in types)
        return _union([found, "None"]) if may_be_null else found

    def _without_null(self, schema: Schema, name: str, *, is_input: bool) -> str:
        if "$ref" in schema:
            return self._named(schema["$ref"].rpartition("/")[-1], is_input=is_input)
        for union in ("oneOf", "anyOf"):
            if union in schema:
                names = [f"{name}{place or ''}" for place in range(len(schema[union]))]
                return _union(
                    self.annotation(part, one, is_input=is_input)
                    for part, one in zip(schema[union], names, strict=True)
                )
        if "allOf" in schema:
            parts = [part for part in schema["allOf"] if part.keys() & {"$ref", "properties", "enum", "type"}]
            if len(parts) == 1:
                return self.annotation(parts[0], name, is_input=is_input)
            return self._object(_merged([self._resolved(part) for part in parts]), name, is_input=is_input)
        if "const" in schema:
            return f"Literal[{schema['const']!r}]"
        if "enum" in schema:
            values = [repr(value) for value in schema["enum"] if value is not None]
            return _union(
                [*([f"Literal[{', '.join(values)}]"] if values else ()), *(["None"] * (None in schema["enum"]))]
            )
        kinds = schema.get("type")
        if kinds == "null":
            return "None"
        kinds = [kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if kind != "null"]
        if len(kinds) > 1:
            return _union(self._of_kind(kind, schema, name, is_input=is_input) for kind in kinds)
        return self._of_kind(kinds[0] if kinds else None, schema, name, is_input=is_input)

    def _of_kind(self, kind: str | None, schema: Schema, name: str, *, is_input: bool) -> str:
        if kind == "array":
            return f"list[{self.annotation(schema.get('items', {}), f'{name}Item', is_input=is_input)}]"
        if kind == "object" or "properties" in schema:
            return self._object(schema, name, is_input=is_input)
        if kind == "string" and is_input and schema.get("format") in ("binary", "date"):
            return "FileContent" if schema["format"] == "binary" else "str | date"
        return _SCALARS.get(kind or "", "Any")

    def _object(self, schema: Schema, name: str, *, is_input: bool) -> str:
        if schema.get("properties"):
            # Two answers with the same text are one class, of the first one's name.
            same = json.dumps([schema, name if is_input else ""], sort_keys=True)
            if same not in self._names:
                self._names[same] = self._free_name(name)
                self._class(self._names[same], schema, is_input=is_input)
            return self._names[same]
        values = schema.get("additionalProperties")
        if isinstance(values, Mapping) and values:
            return f"dict[str, {self.annotation(values, f'{name}Value', is_input=is_input)}]"
        return "dict[str, Any]"

    def _named(self, name: str, *, is_input: bool) -> str:
        """Return the type of a schema of the document's components, and write its class if it is one."""
        schema, class_name = self.document["components"]["schemas"][name], _pascal(name)
        if class_name in self.classes:
            return class_name
        if not (schema.get("properties") or "allOf" in schema):
            return self.annotation(schema, class_name, is_input=is_input)
        whole = self._resolved(schema)
        self.classes[class_name] = ""  # holds the name while the class is written
        self._class(class_name, whole, is_input=is_input)
        return class_name

    def _resolved(self, schema: Schema) -> Schema:
        if "$ref" in schema:
            return self._resolved(self.document["components"]["schemas"][schema["$ref"].rpartition("/")[-1]])
        if "allOf" in schema:
            return {**_merged([self._resolved(part) for part in schema["allOf"]]), **_described(schema)}
        return schema

    def _free_name(self, name: str) -> str:
        taken = {*self.classes, *self._names.values(), *map(_pascal, self.document["components"]["schemas"])}
        return next(one for one in (name, *(f"{name}{number}" for number in range(2, 99))) if one not in taken)

    def _class(self, name: str, schema: Schema, *, is_input: bool) -> None:
        """Write the class of an object. Inputs may leave out what isn't required, and give None for it."""
        required = schema.get("required", ())
        fields = {}
        for key, declared in schema["properties"].items():
            kind = self.annotation(declared, f"{name}{_pascal(key)}", is_input=is_input)
            if is_input:
                text = _one_line(declared.get("description", ""))
                kind = kind if key in required else _union([kind, "None"])
                kind = f"Annotated[{kind}, {json.dumps(text, ensure_ascii=False)}]" if text else kind
                kind = f"Required[{kind}]" if key in required else kind
            elif key not in required:
                kind = f"NotRequired[{kind}]"
            fields[key] = kind
        explain = _one_line(schema.get("description", ""))
        self.classes.pop(name, None)  # after those that it names
        if any(not key.isidentifier() or keyword.iskeyword(key) for key in fields):
            pairs = ", ".join(f"{key!r}: {kind}" for key, kind in fields.items())
            self.classes[name] = f'{name} = TypedDict("{name}", {{{pairs}}}, total={not is_input})\n'
            return
        lines = [f"class {name}(TypedDict{', total=False' if is_input else ''}):"]
        lines += [_docstring(explain, indent=4)] if explain else []
        lines += [f"    {key}: {kind}" for key, kind in fields.items()]
        self.classes[name] = "\n".join(lines) + "\n"

    # --- calls

    def api(self) -> str:
        """Return the module of the calls, and fill `classes` with the types that they name."""
        resources: dict[str, list[str]] = {}
        for path, methods in self.document["paths"].items():
            for method in (one for one in _METHODS if one in methods):
                operation = methods[method]
                if not any(status.startswith("2") for status in operation["responses"]):
                    continue  # a call that is always refused
                resource, _, name = operation["operationId"].partition("_")
                parameters = [
                    self._parameter(one) for one in (*methods.get("parameters", ()), *operation.get("parameters", ()))
                ]
                calls = resources.setdefault(resource, [])
                calls += self._calls(method.upper(), path, name or "get", operation, parameters)
        lines = [_API_HEAD]
        for resource, calls in sorted(resources.items()):
            lines += ["", "", f"class {_pascal(resource)}(Resource):", "\n".join(calls)]
        lines += [
            "",
            "",
            "class Api:",
            '    """All calls."""',
            "",
            "    def __init__(self, transport: Transport) -> None:",
        ]
        lines += ["        self._transport = transport"]
        lines += [f"        self.{resource} = {_pascal(resource)}(transport)" for resource in sorted(resources)]
        return "\n".join(lines) + "\n"

    def _parameter(self, parameter: Schema) -> Schema:
        if "$ref" not in parameter:
            return parameter
        found: Schema = self.document["components"]["parameters"][parameter["$ref"].rpartition("/")[-1]]
        return found

    def _calls(self, method: str, path: str, name: str, operation: Schema, parameters: list[Schema]) -> Iterator[str]:
        title = _pascal(operation["operationId"])
        arguments, options = ["self"], []
        in_path = re.findall(r"{(\w+)}", path)
        kinds = {
            one["name"]: self.annotation(one["schema"], "", is_input=True) for one in parameters if one["in"] == "path"
        }
        arguments += [f"{one}: {kinds.get(one, 'str')}" for one in in_path]
        path_text = re.sub(r"{(\w+)}", r"{segment(\1)}", path)
        url = f'f"{path_text}"' if in_path else f'"{path}"'
        keywords = self._keywords(operation, parameters, title)
        headers = {_snake(one["name"]): one for one in parameters if one["in"] == "header" and _is_given(one["name"])}
        if headers:
            arguments += ["*", *(f"{one}: str | None = None" for one in headers)]
            values = {key: f"new_key({key})" if key == "idempotency_key" else key for key in headers}
            pairs = ", ".join(f'"{headers[key]["name"]}": {value}' for key, value in values.items())
            options.append(f"headers={{{pairs}}}")
        for kind, place in keywords:
            arguments.append(f"**{place}: Unpack[types.{kind}]")
            options.append(f"{place}={place}")
        returned, verb = self._returned(operation, title)
        explain = _explained(operation)
        shown = ", ".join(arguments)
        yield f"    def {name}({shown}) -> {returned}:"
        yield _docstring(explain, indent=8)
        call = f"self._transport.{verb}({', '.join([repr(method), url, *options])})"
        yield f"        {call}" if returned == "None" else f"        return {call}"
        yield ""
        element = self._element(operation) if any(one["name"] == "after" for one in parameters) else None
        if method == "GET" and element:
            each = "iterate" if name == "list" else f"{name}_iterate"
            yield f"    def {each}({shown}) -> Iterator[{element}]:"
            yield _docstring(f"Yield what `{name}` lists, page by page.", indent=8)
            yield f"        return self._transport.pages({url}, query)"
            yield ""

    def _keywords(self, operation: Schema, parameters: list[Schema], title: str) -> list[tuple[str, str]]:
        """Return the class and the place (`body`, `form` or `query`) of a call's keyword arguments."""
        body = operation.get("requestBody", {}).get("content", {})
        for content_type, place in (("application/json", "body"), ("multipart/form-data", "form")):
            if content_type in body:
                kind = self.annotation(body[content_type]["schema"], f"{title}Input", is_input=True)
                return [(kind, place)]
        query = [one for one in parameters if one["in"] == "query"]
        if not query:
            return []
        fields = {
            one["name"]: {**one["schema"], "description": one.get("description", "")}
            for one in sorted(query, key=lambda one: str(one["name"]))
        }
        required = [one["name"] for one in query if one.get("required")]
        schema = {"type": "object", "properties": fields, "required": required}
        return [(self._object(schema, f"{title}Query", is_input=True), "query")]

    def _success(self, operation: Schema) -> Schema:
        status = min(status for status in operation["responses"] if status.startswith("2"))
        found: Schema = operation["responses"][status]
        if "$ref" in found:
            found = self.document["components"]["responses"][found["$ref"].rpartition("/")[-1]]
        return found.get("content") or {}

    def _returned(self, operation: Schema, title: str) -> tuple[str, str]:
        """Return the type of a call's answer, and the method of `Transport` that gives it."""
        content = self._success(operation)
        if "application/json" in content:
            kind = self.annotation(content["application/json"].get("schema", {}), f"{title}Answer", is_input=False)
            return (f"types.{kind}" if kind in self.classes else _qualified(kind, self.classes)), "json"
        if "text/event-stream" in content:
            return "Iterator[Event]", "events"
        return ("Download", "download") if content else ("None", "json")

    def _element(self, operation: Schema) -> str | None:
        """Return the type of what a list contains; None for what is no list."""
        schema = self._resolved(self._success(operation).get("application/json", {}).get("schema", {}))
        data = schema.get("properties", {}).get("data")
        if data is None:
            return None
        title = _pascal(operation["operationId"])
        kind = self.annotation(data["items"], f"{title}AnswerDataItem", is_input=False)
        return _qualified(kind, self.classes)


def _union(kinds: Iterable[str]) -> str:
    """Return the union of types, in which each is named once and None comes last."""
    found = dict.fromkeys(kinds)
    has_none = any(kind == "None" or kind.endswith(" | None") for kind in found)
    parts = [kind.removesuffix(" | None") for kind in found if kind != "None"]
    return " | ".join(dict.fromkeys([*parts, *(["None"] if has_none else [])]))


def _qualified(kind: str, classes: Mapping[str, str]) -> str:
    return re.sub(r"\b[A-Z]\w*", lambda found: f"types.{found[0]}" if found[0] in classes else found[0], kind)


def _is_given(header: str) -> bool:
    """Return True for a header that a call takes as an argument; the others the client sets itself."""
    return header in ("Idempotency-Key", "Last-Event-ID")


def _merged(parts: list[Schema]) -> dict[str, Any]:
    merged: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
    for part in parts:
        merged["properties"] |= part.get("properties", {})
        merged["required"] += part.get("required", [])
    return merged


def _described(schema: Schema) -> dict[str, Any]:
    return {"description": schema["description"]} if "description" in schema else {}


def _explained(operation: Schema) -> str:
    summary, description = operation.get("summary", ""), operation.get("description", "")
    text = description if not summary or description.startswith(summary) else f"{summary}\n\n{description}".strip()
    text = text or operation["operationId"].replace("_", " ").capitalize() + "."
    return f"Deprecated. {text}" if operation.get("deprecated") else text


def _docstring(text: str, *, indent: int) -> str:
    """Return a docstring of at most 120 columns, with the first sentence on the first line if it fits."""
    margin, paragraphs = " " * indent, [" ".join(one.split()) for one in text.replace("\\", "\\\\").split("\n\n")]
    paragraphs[0] = paragraphs[0].rstrip(".") + "." if paragraphs[0] else ""
    wrapped = [textwrap.wrap(one, 116 - indent) for one in paragraphs if one]
    lines = wrapped[0][:1]
    for number, paragraph in enumerate(wrapped):
        rest = paragraph if number else paragraph[1:]
        lines += [*([""] if number else []), *rest]
    body = "\n".join(f"{margin}{line}".rstrip() for line in lines).strip().replace('"""', "'''")
    return f'{margin}"""{body}"""' if len(lines) == 1 else f'{margin}"""{body}\n{margin}"""'


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _pascal(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[^A-Za-z0-9]+", name))


def _snake(name: str) -> str:
    return name.lower().replace("-", "_")


def main() -> None:
    for name, text in generated(served_document()).items():
        (PACKAGE / name).write_text(text)


if __name__ == "__main__":
    import django

    django.setup()
    main()
