"""`easel job` and `easel webhook`: cancel jobs; list webhooks, enable and disable them, send messages again."""

from typing import Any
from uuid import UUID

import click

from easel.cli.action_commands import group_of
from easel.cli.tables import Rows, list_command

DELIVERIES = 50


job = group_of("job")
webhook = group_of("webhook")


@list_command(webhook, of_tenant=True)
def webhook_list(tenant: Any) -> Rows:
    """List a tenant's webhooks."""
    from easel.webhooks.models import WebhookEndpoint

    return [
        {
            "id": str(found.pk),
            "url": found.url,
            "enabled": found.disabled_at is None,
            "disabled_reason": found.disabled_reason,
        }
        for found in WebhookEndpoint.objects.filter(tenant=tenant).order_by("created_at")
    ]


@list_command(webhook, "deliveries")
@click.argument("webhook_id", type=click.UUID, metavar="ID")
def webhook_deliveries(webhook_id: UUID) -> Rows:
    """List a webhook's latest deliveries."""
    from easel.webhooks.models import WebhookDelivery

    found = WebhookDelivery.objects.filter(endpoint=webhook_id).select_related("message")
    return [
        {
            "id": str(one.pk),
            "event": one.message.event,
            "state": one.state,
            "created_at": one.created_at.isoformat(timespec="seconds"),
        }
        for one in found.order_by("-created_at", "-id")[:DELIVERIES]
    ]
