"""`easel key` and `easel project`: credentials, and the projects that their requests are charged to."""

import click

from easel.actions import tenants
from easel.cli.action_commands import add_commands
from easel.cli.django_ready import django_ready
from easel.cli.tables import as_json_option, print_rows


@click.group()
def key() -> None:
    """Create, list, rotate and revoke API keys."""


add_commands(key, (tenants.ADD_KEY, tenants.ROTATE, tenants.REVOKE))


@key.command("list")
@click.argument("tenant_name", metavar="TENANT")
@as_json_option
def key_list(tenant_name: str, as_json: bool) -> None:
    """List a tenant's keys; their secrets are not stored."""
    with django_ready():
        from easel.actions.subjects import tenant_named

        rows = [
            {
                "key_id": found.key_id,
                "name": found.name,
                "project": found.project.slug,
                "scopes": ",".join(found.scopes),
                "created_at": found.created_at.isoformat(timespec="seconds"),
                "revoked": found.revoked_at is not None,
            }
            for found in tenant_named(tenant_name).api_keys.select_related("project").order_by("created_at")
        ]
    print_rows(rows, as_json)


@click.group()
def project() -> None:
    """Add projects, which keys and costs are assigned to, and list them."""


add_commands(project, (tenants.ADD_PROJECT,))


@project.command("list")
@click.argument("tenant_name", metavar="TENANT")
@as_json_option
def project_list(tenant_name: str, as_json: bool) -> None:
    """List a tenant's projects with their labels."""
    with django_ready():
        from easel.actions.subjects import tenant_named

        rows = [
            {
                "project": found.slug,
                "labels": ",".join(f"{name}={value}" for name, value in found.labels.items()),
                "created_at": found.created_at.isoformat(timespec="seconds"),
            }
            for found in tenant_named(tenant_name).projects.order_by("slug")
        ]
    print_rows(rows, as_json)
