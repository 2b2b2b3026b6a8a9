"""Rows that a command prints: a table for people, JSON for programs."""

import json
from collections.abc import Iterable
from typing import Any

import click

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_fields(fields: dict[str, Any], as_json: bool) -> None:
    """Prints the fields of one thing, one a line."""
    if as_json:
        click.echo(json.dumps(fields, default=str))
        return
    width = max(map(len, fields))
    for name, value in fields.items():
        click.echo(f"{name:<{width}} {value}")


def print_rows(rows: Iterable[dict[str, Any]], as_json: bool) -> None:
    """Prints rows that all have the same keys, which head the table.

    A cell is never cut or wrapped, so that numbers and ids can be copied: a long line leaves the terminal's width.
    """
    rows = list(rows)
    if as_json:
        click.echo(json.dumps(rows, default=str))
        return
    table = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)] if rows else [["none"]]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
