"""`easel statement`: what tenants are told of their months."""

import sys
import uuid
from pathlib import Path

import click

from easel.cli.committed import committed
from easel.cli.django_ready import django_ready
from easel.cli.tables import as_json_option, print_rows


@click.group()
def statement() -> None:
    """Months of tenants: draw up, look at, make final."""


@statement.command("list")
@click.argument("name", metavar="TENANT")
@click.option("--limit", type=click.IntRange(1, 1000), default=24, show_default=True)
@as_json_option
def statement_list(name: str, limit: int, as_json: bool) -> None:
    """List a tenant's statements and credit notes, the latest first."""
    with django_ready():
        from billing.invoices.documents import period_of, title_of
        from billing.invoices.queries import statements_page
        from billing.money import amount_text
        from easel.cli.tenants import tenant_named

        found, _ = statements_page(tenant=tenant_named(name), limit=limit, after=None)
        rows = [
            {
                "id": str(one.id),
                "document": title_of(one),
                "state": one.state,
                "period": period_of(one),
                "total": f"{amount_text(one.total_micros)} {one.currency}",
            }
            for one in found
        ]
    print_rows(rows, as_json)


@statement.command("draft")
@click.argument("name", metavar="TENANT")
def statement_draft_command(name: str) -> None:
    """Draw up the oldest month that is over and not final, or draw it up anew."""
    with committed() as act:
        from billing.invoices.documents import period_of
        from billing.invoices.statements import statement_draft
        from billing.money import amount_text
        from easel.cli.tenants import tenant_named

        draft = statement_draft(tenant_named(name), now=act.now)
        act.record("statement.draft", str(draft.id), tenant=draft.tenant)
        total = f"{amount_text(draft.total_micros)} {draft.currency}"
    click.echo(f"{draft.id}: {period_of(draft)}, {total}")


@statement.command("final")
@click.argument("statement_id", type=click.UUID, metavar="ID")
def statement_final_command(statement_id: uuid.UUID) -> None:
    """Make a draft final: its tax is charged and it gets its number."""
    with committed() as act:
        from billing.invoices.documents import title_of
        from billing.invoices.queries import statement_with_id
        from billing.invoices.statements import statement_final

        made = statement_final(statement_with_id(statement_id), now=act.now)
        act.record("statement.final", str(made.id), tenant=made.tenant, details={"number": made.number})
    click.echo(f"{title_of(made)} is final")


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
        from billing.invoices.documents import statement_csv, statement_html, statement_pdf
        from billing.invoices.queries import statement_with_id

        found = statement_with_id(statement_id)
        lines = list(found.lines.all())
        if output is None or output.suffix == ".csv":
            content = "".join(statement_csv(found, lines, comma=comma)).encode()
        elif output.suffix == ".html":
            content = statement_html(found, lines).encode()
        elif output.suffix == ".pdf":
            content = statement_pdf(found, lines)
        else:
            raise click.BadParameter(f"{output.name} is not named .pdf, .html or .csv", param_hint="--output")
    if output is None:
        sys.stdout.buffer.write(content)
    else:
        output.write_bytes(content)
        click.echo(f"{output} is written")
