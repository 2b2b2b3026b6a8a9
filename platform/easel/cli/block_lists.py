"""`easel block-list`: what no prompt may contain."""

import click

from easel.actions.limits import BLOCK, UNBLOCK
from easel.cli.action_commands import add_commands
from easel.cli.django_ready import django_ready
from easel.cli.tables import as_json_option, print_rows


@click.group("block-list")
def block_list() -> None:
    """Phrases and patterns that no prompt may contain, for everybody or for one tenant."""


add_commands(block_list, (BLOCK, UNBLOCK))


@block_list.command("list")
@as_json_option
def block_list_list(as_json: bool) -> None:
    """List the entries."""
    with django_ready():
        from tenants.models import BlockListEntry

        rows = [
            {
                "id": str(entry.pk),
                "tenant": entry.tenant.slug if entry.tenant else "(all)",
                "kind": entry.kind,
                "pattern": entry.pattern,
                "reason": entry.reason,
            }
            for entry in BlockListEntry.objects.select_related("tenant").order_by("created_at")
        ]
    print_rows(rows, as_json)
