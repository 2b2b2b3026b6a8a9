"""`easel key` and `easel project`: credentials, and the projects that their requests are charged to."""

from typing import Any

from easel.cli.action_commands import group_of
from easel.cli.tables import Rows, list_command

key = group_of("key", "Create, list, rotate and revoke API keys.")
project = group_of("project", "Add projects, which keys and costs are assigned to, and list them.")


@list_command(key, of_tenant=True)
def key_list(tenant: Any) -> Rows:
    """List a tenant's keys; their secrets are not stored."""
    return [
        {
            "key_id": found.key_id,
            "name": found.name,
            "project": found.project.slug,
            "scopes": ",".join(found.scopes),
            "created_at": found.created_at.isoformat(timespec="seconds"),
            "revoked": found.revoked_at is not None,
        }
        for found in tenant.api_keys.select_related("project").order_by("created_at")
    ]


@list_command(project, of_tenant=True)
def project_list(tenant: Any) -> Rows:
    """List a tenant's projects with their labels."""
    return [
        {
            "project": found.slug,
            "labels": ",".join(f"{name}={value}" for name, value in found.labels.items()),
            "created_at": found.created_at.isoformat(timespec="seconds"),
        }
        for found in tenant.projects.order_by("slug")
    ]
