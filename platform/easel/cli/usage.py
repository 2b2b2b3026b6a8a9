"""`easel usage`: what a job was measured to use, and corrections of it."""

import sys
import uuid
from datetime import datetime

import click

from easel.cli.action_commands import group_of
from easel.cli.django_ready import django_ready
from easel.cli.instants import InstantParam
from easel.cli.tables import Rows, list_command

usage = group_of("usage")


@list_command(usage)
@click.argument("job_id", metavar="JOB", type=click.UUID)
def usage_list(job_id: uuid.UUID) -> Rows:
    """List a job's usage records with what each was charged."""
    from billing.models import UsageRecord
    from billing.money import from_micros

    records = UsageRecord.objects.filter(job_id=job_id).order_by("meter", "corrects", "id")
    return [
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


@usage.command("rerate")
@click.argument("name", metavar="TENANT")
@click.option("--from", "start", type=InstantParam(), help="Charges written since then; by default all.")
@click.option("--until", "end", type=InstantParam(), help="Exclusive.")
def usage_rerate(name: str, start: datetime | None, end: datetime | None) -> None:
    """Rate charges again from their records; exit 1 if one differs.

    The prices are those that were in force when the records were written.
    """
    with django_ready():
        from billing.usage.rerating import charges_between, rerated
        from easel.actions.subjects import tenant_named

        charges = charges_between(tenant=tenant_named(name), start=start, end=end)
        differences = [str(difference) for difference in rerated(charges)]
        count = charges.count()
    for line in differences:
        click.echo(line)
    click.echo(f"{count} charges, {len(differences)} differ")
    sys.exit(1 if differences else 0)
