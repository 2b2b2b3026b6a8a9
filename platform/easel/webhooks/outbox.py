"""The outbox: messages are written in the transaction of their event, so that a crash loses both or neither."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from django.db import connection, transaction
from django.db.models import Q
from typing_extensions import TypedDict

from easel.webhooks.errors import WebhookDisabled, WebhookNotFound
from easel.webhooks.models import Event, WebhookDelivery, WebhookEndpoint, WebhookMessage
from tenants.models import Tenant

CHANNEL = "easel_webhooks"


class TestEventData(TypedDict):
    webhook_id: str
    message: str


@transaction.atomic
def webhook_emit(
    *, tenant: Tenant, event: Event, data: Callable[[], Mapping[str, Any]], now: datetime
) -> WebhookMessage | None:
    """Write a message for the tenant's webhooks that want this event; None, without calling `data`, if none does."""
    enabled = WebhookEndpoint.objects.filter(tenant=tenant, disabled_at=None)
    wanting = list(enabled.filter(Q(events=[]) | Q(events__contains=[event])))
    return _send(wanting, tenant=tenant, event=event, data=data, now=now)


@transaction.atomic
def webhook_test(endpoint: WebhookEndpoint, *, now: datetime) -> WebhookDelivery:
    """Send `webhook.test` to one webhook, whichever events it wants. Raises `WebhookDisabled`, `WebhookNotFound`."""
    if endpoint.disabled_at is not None:
        raise WebhookDisabled

    data: TestEventData = {"webhook_id": str(endpoint.pk), "message": "This webhook works."}
    message = _send([endpoint], tenant=endpoint.tenant, event=Event.TEST, data=lambda: data, now=now)
    if message is None:  # it was deleted since it was read
        raise WebhookNotFound
    return WebhookDelivery.objects.get(message=message)


@transaction.atomic
def delivery_replay(delivery: WebhookDelivery, *, now: datetime) -> WebhookDelivery:
    """Send a message again, with the same id. Raises `WebhookDisabled`."""
    row = WebhookDelivery.objects.select_for_update(of=("self",)).select_related("endpoint").get(pk=delivery.pk)
    if row.endpoint.disabled_at is not None:
        raise WebhookDisabled
    row.state, row.attempts, row.next_at, row.leased_until = WebhookDelivery.State.PENDING, 0, now, None
    row.save(update_fields=["state", "attempts", "next_at", "leased_until"])
    _wake()
    return row


def _send(
    endpoints: list[WebhookEndpoint],
    *,
    tenant: Tenant,
    event: Event,
    data: Callable[[], Mapping[str, Any]],
    now: datetime,
) -> WebhookMessage | None:
    if not endpoints or not (endpoints := _still_there(endpoints)):
        return None
    message = WebhookMessage.objects.create(tenant=tenant, event=event, data=data(), created_at=now)
    WebhookDelivery.objects.bulk_create(
        WebhookDelivery(endpoint=endpoint, message=message, next_at=now, created_at=now) for endpoint in endpoints
    )
    _wake()
    return message


def _still_there(endpoints: list[WebhookEndpoint]) -> list[WebhookEndpoint]:
    """Leave out endpoints that were deleted since they were read, and let none be deleted until the commit.

    Otherwise the end of a job would fail with the delivery to an endpoint that is gone.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM webhooks_webhookendpoint WHERE id = ANY(%s) FOR KEY SHARE",
            [[endpoint.pk for endpoint in endpoints]],
        )
        found = {pk for (pk,) in cursor.fetchall()}
    return [endpoint for endpoint in endpoints if endpoint.pk in found]


def _wake() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, '')", [CHANNEL])
