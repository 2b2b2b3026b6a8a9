"""`easel export`: costs and usage as files, for BI tools, spreadsheets and other meters."""

import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from easel.cli.django_ready import django_ready

_Day = click.DateTime(["%Y-%m-%d"])


def _options(command: Any) -> Any:
    for option in (
        click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="A file, else stdout."),
        click.option("--tenant", help="Only this tenant."),
        click.option("--end", type=_Day, metavar="YYYY-MM-DD", help="The last day (UTC), by default today."),
        click.option(
            "--start",
            type=_Day,
            metavar="YYYY-MM-DD",
            help="The first day (UTC), by default the first of the last one's month.",
        ),
    ):
        command = option(command)
    return command


export = click.Group("export")


@export.command("focus")
@_options
@click.option("--invoice", type=click.IntRange(1), help="All charges of this statement or credit note, without days.")
def export_focus(output: Path | None, invoice: int | None, **days: Any) -> None:
    """Export charges in the columns of FOCUS 1.2.

    The format is CSV, or Parquet if OUTPUT is named .parquet.
    """
    if invoice is not None and (days["start"] or days["end"]):
        raise click.BadParameter("an invoice has its own period: leave --start and --end out", param_hint="--invoice")
    if output is not None and output.suffix not in (".csv", ".parquet"):
        raise click.BadParameter(f"{output.name} is not named .csv or .parquet", param_hint="--output")
    form = output.suffix[1:] if output else "csv"
    with django_ready():
        from billing.invoices.queries import statement_numbered
        from easel.reporting import exports

        span = _span(**days)
        if invoice is not None:
            statement_numbered(invoice, tenant=span.tenant)
        _write(exports.focus(span, form=form, invoice=invoice), output)


@export.command("costs")
@_options
@click.option("--comma", is_flag=True, help="Decimals with a comma, columns with a semicolon.")
def export_costs(output: Path | None, comma: bool, **days: Any) -> None:
    """Export charges by day, project, labels and so on, as CSV."""
    with django_ready():
        from easel.reporting import exports

        _write(exports.costs(_span(**days), comma=comma), output)


@export.command("events")
@_options
def export_events(output: Path | None, **days: Any) -> None:
    """Export usage, one CloudEvent a line."""
    with django_ready():
        from easel.reporting import exports

        _write(exports.events(_span(**days)), output)


def _span(start: datetime | None, end: datetime | None, tenant: str | None) -> Any:
    from easel.actions.subjects import tenant_named
    from easel.reporting.exports import Span

    today = datetime.now(UTC).date()
    last = end.date() if end else max(today, start.date()) if start else today
    first = start.date() if start else last.replace(day=1)
    if last < first:
        raise click.BadParameter(f"is before the first day, {first}", param_hint="--end")
    return Span(start=first, end=last, tenant=tenant_named(tenant).slug if tenant else None)


def _write(blocks: Iterator[bytes], output: Path | None) -> None:
    """Write under another name until the file is complete, and renames it then."""
    if output is None:
        for block in blocks:
            sys.stdout.buffer.write(block)
        return
    part = output.with_name(f"{output.name}.part")
    try:
        with part.open("wb") as file:
            for block in blocks:
                file.write(block)
        os.replace(part, output)
    finally:
        part.unlink(missing_ok=True)
    click.echo(f"{output} is written", err=True)
