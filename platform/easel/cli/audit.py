"""`easel audit`: checks the invariants on the live system."""

import json
import sys
from datetime import UTC, datetime

import click

from easel.cli.django_ready import django_ready


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON: what is broken, by check.")
@click.option("--full", is_flag=True, help="Rate every charge again, not only the latest 10,000.")
def audit(as_json: bool, full: bool) -> None:
    """Check the invariants on the live system.

    It checks the ledger, holds, attribution and final states, names what is broken, and exits with 1 then.
    """
    with django_ready():
        from easel.observability import audit as invariants

        broken = invariants.audit(now=datetime.now(UTC), full=full)
    healthy = not any(broken.values())
    if as_json:
        click.echo(json.dumps({"ok": healthy, "broken": {name: found for name, found in broken.items() if found}}))
    else:
        for name, found in broken.items():
            click.echo(f"{'broken' if found else 'ok':<7} {name.replace('_', ' ')}")
            for line in found:
                click.echo(f"        {line}")
    sys.exit(0 if healthy else 1)
