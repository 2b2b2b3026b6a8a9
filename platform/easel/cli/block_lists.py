"""`easel block-list`: what no prompt may contain."""

from easel.cli.action_commands import group_of
from easel.cli.tables import Rows, list_command

block_list = group_of("block-list", "Phrases and patterns that no prompt may contain, for everybody or for one tenant.")


@list_command(block_list)
def block_list_list() -> Rows:
    """List the entries."""
    from tenants.models import BlockListEntry

    return [
        {
            "id": str(entry.pk),
            "tenant": entry.tenant.slug if entry.tenant else "(all)",
            "kind": entry.kind,
            "pattern": entry.pattern,
            "reason": entry.reason,
        }
        for entry in BlockListEntry.objects.select_related("tenant").order_by("created_at")
    ]
