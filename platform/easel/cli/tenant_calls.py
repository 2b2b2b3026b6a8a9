"""Commands from the calls of the client: `easel my jobs list` calls `client.jobs.list`.

The argument of a path and the required fields of a body become arguments, the others become options, with the types
and the texts of the OpenAPI document. So a call that the API gets has its command as soon as `scripts/client` ran.
"""

import inspect
import json
import sys
import types as python_types
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Required, Union, get_args, get_origin, get_type_hints

import click

import easel_client.types
from easel.cli.headings import heading, is_shown
from easel.cli.server import local_url, server_options
from easel.cli.tables import print_fields, print_rows
from easel_client import Easel, EaselError, api
from easel_client.transport import Download, FileContent

# Columns of lists whose things have more fields than a line holds. A dot leads to a field within a field.
COLUMNS: dict[str, tuple[str, ...]] = {
    "jobs list": ("id", "status", "created_at", "model", "size", "n", "usage.cost_details", "prompt"),
    "adapters list": ("name", "model", "status", "versions.version", "created_at"),
    "models list": ("id", "alias_of", "default", "version", "size_default", "steps_default", "steps_max"),
    "statements list": ("id", "object", "title", "status", "period_start", "period_end", "total"),
    "webhooks list": ("id", "url", "events", "enabled", "disabled_reason"),
    "webhooks deliveries": ("id", "event", "status", "created_at", "next_attempt_at"),
    "errors list": ("code", "status", "retryable", "text", "remedy"),
    "batches list": (
        "id",
        "status",
        "created_at",
        "request_counts.completed",
        "request_counts.failed",
        "request_counts.total",
        "waiting_for.code",
    ),
    "files list": ("id", "filename", "purpose", "bytes", "status", "created_at", "expires_at"),
}
# Calls that other commands make, or that no command should make.
LEFT_OUT = {
    "images generations": "`easel generate` and `easel my generate-many`",
    "usage": "a deprecated alias of costs",
    "jobs events": "`easel my jobs follow`",
    "index": "says where things are to who calls without a client",
}
AS_JSON = {"openapi"}  # answers that are for programs only
_NAMES = {"get": "show"}
_CELL_CHARS_MAX = 60
_NEVER_CUT = {"remedy", "message"}  # which is what the reader came for
KEY_HELP = "A key of yours; by default EASEL_API_KEY."


def groups() -> list[click.Command]:
    """Return a group for each resource of the API, or the command itself where a resource has one call."""
    found: list[click.Command] = []
    for resource, kind in sorted(_resources().items()):
        calls = {
            _NAMES.get(name, name).replace("_", "-"): call
            for name, call in vars(kind).items()
            if not name.startswith("_") and not name.endswith("iterate")
        }
        calls = {name: call for name, call in calls.items() if f"{resource} {name}" not in LEFT_OUT}
        if resource in LEFT_OUT or not calls:
            continue
        if list(calls) == ["show"]:
            found.append(_command(resource, resource, resource, calls["show"]))
            continue
        commands = [_command(name, f"{resource} {name}", resource, call) for name, call in calls.items()]
        explain = f"{resource.capitalize()}: {', '.join(calls)}."
        found.append(click.Group(resource, commands=commands, help=explain, short_help=explain))
    return found


def _resources() -> dict[str, type[api.Resource]]:
    kinds = inspect.getmembers(api, inspect.isclass)
    return {name.lower(): kind for name, kind in kinds if issubclass(kind, api.Resource) and kind is not api.Resource}


def _command(name: str, path: str, resource: str, call: Callable[..., Any]) -> click.Command:
    arguments, fields = _inputs(call)
    params: list[click.Parameter] = [click.Argument([one], metavar=_metavar(one)) for one in arguments]
    params += [_param(field, kind) for field, kind in fields.items()]
    returns_file = call.__annotations__["return"] is Download
    if returns_file:
        output = click.Path(path_type=Path)
        text = "A file, or a folder that gets the file under the server's name. By default it is printed."
        params.append(click.Option(["-o", "--output"], type=output, help=text))
    else:
        params.append(click.Option(["--json", "as_json"], is_flag=True, help="Print the API's answer."))

    @server_options(key_help=KEY_HELP)
    def run(server: str | None, key: str | None, **given: Any) -> None:
        as_json, output = given.pop("as_json", False), given.pop("output", None)
        path_values = [given.pop(one) for one in arguments]
        values = {field: _value(fields[field], value) for field, value in given.items() if value not in (None, ())}
        with connected(server, key) as client:
            answer = getattr(getattr(client, resource), call.__name__)(*path_values, **values)
            if returns_file:
                _put(answer, output)
            else:
                show(answer, as_json=as_json or resource in AS_JSON, columns=COLUMNS.get(path))

    options = run.__click_params__[::-1]  # type: ignore[attr-defined]
    explain = inspect.getdoc(call) or ""
    first = " ".join(explain.partition("\n\n")[0].split())
    return click.Command(
        name,
        params=sorted([*params, *options], key=lambda one: isinstance(one, click.Option)),
        callback=run,
        help=explain,
        short_help=f"{first.split('. ')[0].removesuffix('.')}.",
    )


def connected(server: str | None, key: str | None) -> Easel:
    """Return a client. Raises `EaselError` if there is no server or no key."""
    if not key:
        raise EaselError("give an API key by --key or EASEL_API_KEY: an operator makes one", code="not_configured")
    return Easel(server or local_url(), key)


# --- what a command takes


def _inputs(call: Callable[..., Any]) -> tuple[list[str], dict[str, Any]]:
    """Return the names of a call's path arguments, and its fields with their types."""
    arguments, fields = [], {}
    for name, parameter in inspect.signature(call).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            [declared] = get_args(parameter.annotation)
            fields = get_type_hints(declared, vars(easel_client.types), include_extras=True)
        elif parameter.kind is not parameter.KEYWORD_ONLY and name != "self":
            arguments.append(name)
    return arguments, fields


def _param(name: str, declared: Any) -> click.Parameter:
    required = get_origin(declared) is Required
    kind, text = _plain(declared)
    is_list = get_origin(kind) is list
    if required and kind is not bool:
        return click.Argument([name], metavar=_metavar(name), type=_click_type(kind))
    option = f"--{name.replace('_', '-')}"
    if kind is bool:
        return click.Option([f"{option}/--no-{option[2:]}", name], default=None, help=text, required=required)
    element = get_args(kind)[0] if is_list else kind
    is_multiple = is_list and element is not Any and not _is_json(element)
    shown = element if is_multiple else kind
    return click.Option([option, name], type=_click_type(shown), multiple=is_multiple, metavar=_word(shown), help=text)


def _plain(declared: Any) -> tuple[Any, str]:
    """Return the type of a field without `Required`, `Annotated` and None, and its text."""
    text = ""
    while get_origin(declared) in (Required, Annotated, Union, python_types.UnionType):
        if get_origin(declared) is Annotated:
            declared, text = get_args(declared)[:2]
        elif get_origin(declared) is Required:
            [declared] = get_args(declared)
        elif declared == FileContent:
            break
        else:
            # `str | date` is written as text
            parts = [part for part in get_args(declared) if part is not type(None)]
            declared = parts[0]
    return declared, text


def _click_type(kind: Any) -> Any:
    if kind == FileContent:
        return click.Path(exists=True, dir_okay=False, path_type=Path)
    if get_origin(kind) is Literal:
        return click.Choice([str(value) for value in get_args(kind)])
    return kind if kind in (int, float) else str


def _is_json(kind: Any) -> bool:
    return get_origin(kind) in (dict, list) or (isinstance(kind, type) and issubclass(kind, dict))


def _word(kind: Any) -> str | None:
    return "JSON" if _is_json(kind) else None


def _metavar(name: str) -> str:
    return name.upper()


def _value(declared: Any, given: Any) -> Any:
    """Return an option's value as the call takes it. An object is JSON, or `@FILE` that has it."""
    kind, _ = _plain(declared)
    if isinstance(given, tuple):
        return list(given)
    if not _is_json(kind):
        return given
    text = Path(given[1:]).read_text() if given.startswith("@") else given
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"{given!r} is not JSON: {error}") from error


# --- what a command prints


def _put(file: Download, output: Path | None) -> None:
    with file:
        if output is None:
            for block in file:
                sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()
        else:
            click.echo(f"{file.save(output)} is written")


def show(answer: Any, *, as_json: bool, columns: Iterable[str] | None = None) -> None:
    """Print an answer: a list as a table, a thing as its fields with a table for each list of things in it."""
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
        return
    if answer is None:
        click.echo("done")
        return
    if isinstance(answer.get("data"), list):
        print_rows(_table(answer["data"], columns), as_json=False)
        answer = {name: value for name, value in answer.items() if name not in _CURSOR}
        if answer.pop("has_more", False):
            click.echo(f"there are more: --after {answer['last_id']}", err=True)
        answer.pop("last_id", None)
    flat = dict(_flat(answer))
    tables = {name: value for name, value in flat.items() if _is_table(value)}
    fields = {name: _cell(value, of=name) for name, value in flat.items() if name not in tables and is_shown(name)}
    if fields := {heading(name): text for name, text in fields.items() if text}:
        print_fields(fields, as_json=False)
    for name, rows in tables.items():
        click.echo(f"\n{heading(name)}")
        print_rows(_table(rows, None), as_json=False)


_CURSOR = ("data", "object", "first_id")


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _table(things: list[Any], columns: Iterable[str] | None) -> list[dict[str, str]]:
    """Return the rows of a table. Without `columns` it has every field that one of the things has, but no table."""
    rows = [one if isinstance(one, dict) else {"value": one} for one in things]
    if columns is None:
        found = [{name: value for name, value in _flat(row) if not _is_table(value)} for row in rows]
        names = dict.fromkeys(name for row in found for name in row if is_shown(name))
        cells = [{name: _cell(row.get(name), of=name) for name in names} for row in found]
    else:
        cells = [{name: _cell(_within(row, name), of=name) for name in columns} for row in rows]
    return [
        {heading(name): text if name in _NEVER_CUT else _short(text) for name, text in row.items()} for row in cells
    ]


def _short(text: str) -> str:
    """Cut a sentence that makes a row too long. An id, a number or an address is never cut: it is to be copied."""
    return f"{text[: _CELL_CHARS_MAX - 1]}…" if len(text) > _CELL_CHARS_MAX and " " in text else text


def _within(one: Any, path: str) -> Any:
    for name in path.split("."):
        if isinstance(one, list):
            one = [part.get(name) for part in one]
        elif isinstance(one, dict):
            one = one.get(name)
    return one


def _flat(fields: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Yield fields, those of objects with a dot. An amount is one field with its currency."""
    for name, value in fields.items():
        if not isinstance(value, dict) or not value:
            yield name, value
        elif {"amount", "currency"} <= value.keys():
            yield name, {part: value[part] for part in ("amount", "currency")}
            yield from ((f"{name}.{inner}", lines) for inner, lines in value.items() if _is_table(lines))
        else:
            yield from ((f"{name}.{inner}", content) for inner, content in _flat(value))


def _cell(value: Any, *, of: str = "") -> str:
    """Return a value's text; `of` is the path of its field. OpenAI's files, batches and models have Unix seconds."""
    if value is None or value == {}:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and (of.endswith("_at") or of == "created"):
        return f"{datetime.fromtimestamp(value, UTC):%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, float):
        return format(Decimal(repr(value)).normalize(), "f")  # 6 of 6.0, and 0.00001 without an exponent
    if isinstance(value, list):
        return ", ".join(map(_cell, value))
    if isinstance(value, dict):
        is_money = {"amount", "currency"} <= value.keys()
        return f"{value['amount']} {value['currency']}" if is_money else json.dumps(value, ensure_ascii=False)
    return " ".join(str(value).split())
