"""`easel job` and `easel webhook`: cancel jobs; switch tenants' webhooks and send their messages again."""

from uuid import UUID

import click

from easel.actions import jobs
from easel.cli.action_commands import add_commands
from easel.cli.django_ready import django_ready
from easel.cli.tables import as_json_option, print_rows

DELIVERIES = 50


@click.group()
def job() -> None:
    """Cancel jobs."""


add_commands(job, (jobs.CANCEL,))


@click.group()
def webhook() -> None:
    """List tenants' webhooks, switch them, and send their messages again."""


add_commands(webhook, (jobs.ENABLE, jobs.DISABLE, jobs.REPLAY))


@webhook.command("list")
@click.argument("tenant_name", metavar="TENANT")
@as_json_option
def webhook_list(tenant_name: str, as_json: bool) -> None:
    """List a tenant's webhooks."""
    with django_ready():
        from easel.actions.subjects import tenant_named
        from easel.webhooks.models import WebhookEndpoint

        rows = [
            {
                "id": str(found.pk),
                "url": found.url,
                "enabled": found.disabled_at is None,
                "disabled_reason": found.disabled_reason,
            }
            for found in WebhookEndpoint.objects.filter(tenant=tenant_named(tenant_name)).order_by("created_at")
        ]
    print_rows(rows, as_json)


@webhook.command("deliveries")
@click.argument("webhook_id", type=click.UUID, metavar="ID")
@as_json_option
def webhook_deliveries(webhook_id: UUID, as_json: bool) -> None:
    """List a webhook's latest deliveries."""
    with django_ready():
        from easel.webhooks.models import WebhookDelivery

        found = WebhookDelivery.objects.filter(endpoint=webhook_id).select_related("message")
        rows = [
            {
                "id": str(one.pk),
                "event": one.message.event,
                "state": one.state,
                "created_at": one.created_at.isoformat(timespec="seconds"),
            }
            for one in found.order_by("-created_at", "-id")[:DELIVERIES]
        ]
    print_rows(rows, as_json)
