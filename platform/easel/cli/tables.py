"""Rows that a command prints: a table for people, JSON for programs."""

import json
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import click

from easel.cli.django_ready import django_ready

Rows = Iterable[dict[str, Any]]


def list_command(
    group: click.Group, name: str = "list", *, of_tenant: bool = False
) -> Callable[[Callable[..., Rows]], click.Command]:
    """Make a command that prints the rows which the function returns.

    With `of_tenant` the command has the argument TENANT, and the function takes that tenant.
    """

    def decorate(rows: Callable[..., Rows]) -> click.Command:
        @wraps(rows)
        def run(as_json: bool, **given: Any) -> None:
            with django_ready():
                if of_tenant:
                    from easel.actions.subjects import tenant_named

                    given["tenant"] = tenant_named(given["tenant"])
                found = list(rows(**given))
            print_rows(found, as_json)

        command = group.command(name)(run)
        arguments = [click.Argument(["tenant"], metavar="TENANT")] if of_tenant else []
        as_json = click.Option(["--json", "as_json"], is_flag=True, help="Print JSON.")
        command.params = [*arguments, *command.params, as_json]
        return command

    return decorate


def print_fields(fields: dict[str, Any], as_json: bool) -> None:
    """Print the fields of one thing, one a line."""
    if as_json:
        click.echo(json.dumps(fields, default=str))
        return
    width = max(map(len, fields))
    for name, value in fields.items():
        click.echo(f"{name:<{width}} {value}")


def print_rows(rows: Rows, as_json: bool) -> None:
    """Print rows that all have the same keys, which head the table.

    A cell is never cut or wrapped, so that numbers and ids can be copied: a long line leaves the terminal's width.
    """
    rows = list(rows)
    if as_json:
        click.echo(json.dumps(rows, default=str))
        return
    table = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)] if rows else [["none"]]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(map(_cell, value)) if isinstance(value, list | tuple) else str(value)
