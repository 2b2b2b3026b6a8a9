"""`easel usage`: what a job was measured to use, and corrections of it."""

import getpass
import sys
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import click

from core.errors import DomainError
from easel.cli.committed import committed
from easel.cli.django_ready import django_ready
from easel.cli.tables import as_json_option, print_rows


class Instant(click.ParamType[datetime]):
    """A time of ISO 8601; without an offset, UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            now = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time, as 2027-01-01 or 2027-01-01T00:00:00Z", param, ctx)
        return now if now.tzinfo else now.replace(tzinfo=UTC)


class RecordNotFound(DomainError):
    """There is no such usage record: `easel usage list JOB` shows a job's."""

    code, http_status = "usage_record_not_found", 404


class Exact(click.ParamType[Decimal]):
    """A number, kept as it is written."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        try:
            return Decimal(str(value))
        except ArithmeticError:
            self.fail(f"{value!r} is no number, for example 12.5", param, ctx)


@click.group()
def usage() -> None:
    """What was measured, and corrections of it."""


@usage.command("list")
@click.argument("job_id", metavar="JOB", type=click.UUID)
@as_json_option
def usage_list(job_id: uuid.UUID, as_json: bool) -> None:
    """List a job's usage records, corrections too, with what each was charged."""
    with django_ready():
        from billing.models import UsageRecord
        from billing.money import from_micros

        records = UsageRecord.objects.filter(job_id=job_id).order_by("meter", "corrects", "id")
        rows = [
            {
                "record": str(record.id),
                "meter": record.meter,
                "quantity": f"{record.quantity.normalize():f}",
                "charged": ", ".join(
                    f"{charge.kind} {from_micros(charge.amount_micros):.6f} {charge.currency}"
                    for charge in record.charges.order_by("kind")
                )
                or "unpriced",
                "corrects": str(record.corrects_id or ""),
                "reason": record.reason,
            }
            for record in records.prefetch_related("charges")
        ]
    print_rows(rows, as_json)


@usage.command("rerate")
@click.argument("name", metavar="TENANT")
@click.option("--from", "start", type=Instant(), help="Of charges written since then; by default all.")
@click.option("--until", "end", type=Instant(), help="Exclusive.")
def usage_rerate(name: str, start: datetime | None, end: datetime | None) -> None:
    """Rate a tenant's charges again from its records and the prices of their time; exit 1 where one differs."""
    with django_ready():
        from billing.usage.rerating import charges_between, rerated
        from easel.cli.tenants import tenant_named

        charges = charges_between(tenant=tenant_named(name), start=start, end=end)
        differences = [str(difference) for difference in rerated(charges)]
        count = charges.count()
    for line in differences:
        click.echo(line)
    click.echo(f"{count} charges, {len(differences)} differ")
    sys.exit(1 if differences else 0)


@usage.command("correct")
@click.argument("record_id", metavar="RECORD", type=click.UUID)
@click.option("--quantity", type=Exact(), help="What is right.")
@click.option("--by", "difference", type=Exact(), help="What to add to it; below zero, to take from it.")
@click.option("--reason", required=True, help="Why, for the tenant's statement and the audit log.")
@click.option("--key", type=click.UUID, help="Makes a repeat harmless: the same key, a UUID, corrects once.")
def usage_correct(
    record_id: uuid.UUID, quantity: Decimal | None, difference: Decimal | None, reason: str, key: uuid.UUID | None
) -> None:
    """Correct what was measured; the difference is charged, or given back, by the terms of the first charge.

    What is on a final statement is told by a credit note.
    """
    if (quantity is None) == (difference is None):
        raise click.UsageError("give either --quantity or --by")
    with committed() as act:
        from billing.invoices import corrections, credit_notes
        from billing.invoices.documents import title_of
        from billing.models import UsageRecord
        from billing.money import EXACT, format_micros

        record = UsageRecord.objects.select_related("tenant", "project").filter(id=record_id).first()
        if record is None:
            raise RecordNotFound
        if difference is not None:
            quantity = EXACT.add(corrections.quantity_of(record), difference)
        assert quantity is not None  # by the first check
        made, note = credit_notes.usage_correct(
            record=record,
            key=key or uuid.uuid4(),
            quantity=quantity,
            reason=reason,
            author=f"command:{getpass.getuser()}",
            now=act.now,
        )
        right = corrections.quantity_of(record)
        charged = sum(charge.amount_micros for charge in made.charges.all())
        money = format_micros(charged, record.tenant.currency)
        told = f"; {title_of(note)} tells it" if note else ""
    click.echo(f"{record.meter} is {right.normalize():f}; {money} {'more' if charged >= 0 else '(given back)'}{told}")
