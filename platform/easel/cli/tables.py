"""Rows that a command prints: a table for people, JSON for programs."""

import json
from collections.abc import Iterable
from typing import Any

import click

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_rows(rows: Iterable[dict[str, Any]], as_json: bool) -> None:
    """Every row has the same keys, which head the table."""
    rows = list(rows)
    if as_json:
        click.echo(json.dumps(rows, default=str))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*(rows[0] if rows else ("none",)), box=None)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
