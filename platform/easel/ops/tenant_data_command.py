"""`easel tenant retention`, `export` and `erase`: what is kept of a tenant, and for how long."""

from typing import Any

import click

from easel.ops.committed import committed
from easel.ops.limit_command import NO_LIMIT, WholeLimit
from easel.ops.tables import as_json_option, print_rows


@click.command("retention")
@click.argument("name")
@click.option("--output-days", type=WholeLimit(), help="How long images are kept: 1 to 3650, or none of its own.")
@click.option("--job-days", type=WholeLimit(), help="How long prompts, metadata, users and errors are kept.")
@as_json_option
def tenant_retention(name: str, as_json: bool, **given: Any) -> None:
    """Set how long a tenant's images and jobs are kept, or show it; deletion follows within seconds.

    A job's row stays after its days, without its words: what it did and what it cost.
    """
    with committed() as act:
        from django.conf import settings

        from easel.ops.tenant_command import tenant_named
        from tenants.retention import retention_of, retention_set

        found = tenant_named(name)
        changes = {field: None if days is NO_LIMIT else days for field, days in given.items() if days is not None}
        holds = retention_of(found, default=settings.EASEL)
        if changes:
            holds = retention_set(tenant=found, changes=changes, default=settings.EASEL)
            act.record("retention.set", name, tenant=found, details=changes)
        rows = [{"tenant": name, "output_days": holds.output_days, "job_days": holds.job_days}]
    print_rows(rows, as_json)
