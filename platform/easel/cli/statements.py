"""`easel statement`: tenants' statements and credit notes."""

import sys
import uuid
from pathlib import Path
from typing import Any

import click

from easel.cli.action_commands import group_of
from easel.cli.django_ready import django_ready
from easel.cli.tables import Rows, list_command

statement = group_of("statement")


@list_command(statement, of_tenant=True)
@click.option("--limit", type=click.IntRange(1, 1000), default=24, show_default=True)
def statement_list(tenant: Any, limit: int) -> Rows:
    """List a tenant's statements and credit notes, the latest first."""
    from billing.invoices.documents import period_of, title_of
    from billing.invoices.queries import statements_page
    from billing.money import amount_text

    found, _ = statements_page(tenant=tenant, limit=limit, after=None)
    return [
        {
            "id": str(one.id),
            "document": title_of(one),
            "state": one.state,
            "period": period_of(one),
            "total": f"{amount_text(one.total_micros)} {one.currency}",
        }
        for one in found
    ]


@statement.command("show")
@click.argument("statement_id", type=click.UUID, metavar="ID")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file: .pdf, .html or .csv (as by default).",
)
@click.option("--comma", is_flag=True, help="CSV with decimal commas.")
def statement_show(statement_id: uuid.UUID, output: Path | None, comma: bool) -> None:
    """Print a statement's lines as CSV, or write it as a document."""
    with django_ready():
        from billing.invoices.files import FORMS, statement_file
        from billing.invoices.queries import statement_by_id

        form = output.suffix[1:] if output else "csv"
        if form not in FORMS:
            raise click.BadParameter(f"{output} is not named .pdf, .html or .csv", param_hint="--output")
        content = statement_file(statement_by_id(statement_id), form, comma=comma).content
    if output is None:
        sys.stdout.buffer.write(content)
    else:
        output.write_bytes(content)
        click.echo(f"{output} is written")
