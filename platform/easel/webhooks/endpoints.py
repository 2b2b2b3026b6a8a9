"""Verbs on a tenant's webhooks: create, change, rotate the secret, delete."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from easel.webhooks.addresses import url_check
from easel.webhooks.errors import TooManyWebhooks, WebhookEventUnknown
from easel.webhooks.models import Event, WebhookEndpoint, WebhookMessage
from easel.webhooks.signing import secret_new, secret_seal
from tenants.models import Tenant

ENDPOINTS_MAX = 20
# Time in which the previous secret signs as well, so that the tenant can update its receivers.
ROTATION = timedelta(hours=24)


@transaction.atomic
def endpoint_create(
    *, tenant: Tenant, url: str, events: Sequence[str], endpoint_id: UUID, now: datetime
) -> tuple[WebhookEndpoint, str]:
    """Create a webhook and return it with its secret, which is shown only once.

    Raises `WebhookUrlInvalid`, `WebhookEventUnknown`, `TooManyWebhooks`.
    """
    # The lock keeps two requests at once from exceeding the limit.
    Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
    if WebhookEndpoint.objects.filter(tenant=tenant).count() >= ENDPOINTS_MAX:
        raise TooManyWebhooks(f"this tenant has {ENDPOINTS_MAX} webhooks, which is the limit: delete one")
    secret = secret_new()
    made = WebhookEndpoint.objects.create(
        id=endpoint_id,
        tenant=tenant,
        url=url_check(url, allowed=settings.EASEL.webhook_allow),
        events=_known_events(events),
        secret=secret_seal(secret, key=settings.EASEL.secret_key),
        created_at=now,
    )
    return made, secret


@transaction.atomic
def endpoint_change(endpoint: WebhookEndpoint, *, changes: dict[str, Any], now: datetime) -> WebhookEndpoint:
    """Set `url`, `events` and `enabled`.

    A webhook that is enabled again gets the deliveries that were pending when it was disabled, but no events that
    happened while it was disabled.
    """
    row = WebhookEndpoint.objects.select_for_update().get(pk=endpoint.pk)
    if "url" in changes:
        row.url = url_check(changes["url"], allowed=settings.EASEL.webhook_allow)
    if "events" in changes:
        row.events = _known_events(changes["events"])
    if changes.get("enabled") is True and row.disabled_at is not None:
        row.disabled_at, row.disabled_reason = None, ""
        row.deliveries.filter(state="pending").update(attempts=0, next_at=now, leased_until=None)
    if changes.get("enabled") is False and row.disabled_at is None:
        row.disabled_at, row.disabled_reason = now, "switched off"
    row.save()
    return row


@transaction.atomic
def secret_rotate(endpoint: WebhookEndpoint, *, now: datetime) -> tuple[WebhookEndpoint, str]:
    """Generate a new secret and return it; the previous secret signs as well for a day."""
    row = WebhookEndpoint.objects.select_for_update().get(pk=endpoint.pk)
    secret = secret_new()
    row.previous_secret, row.previous_until = row.secret, now + ROTATION
    row.secret = secret_seal(secret, key=settings.EASEL.secret_key)
    row.save(update_fields=["secret", "previous_secret", "previous_until"])
    return row, secret


@transaction.atomic
def endpoint_delete(endpoint: WebhookEndpoint) -> None:
    """Delete a webhook and its pending deliveries."""
    _delete(WebhookEndpoint.objects.filter(pk=endpoint.pk))


@transaction.atomic
def webhooks_erase(*, tenant: Tenant) -> int:
    """Delete a tenant's webhooks and messages; return the number of webhooks."""
    deleted = _delete(WebhookEndpoint.objects.filter(tenant=tenant))
    WebhookMessage.objects.filter(tenant=tenant).delete()
    return deleted


def _delete(endpoints: QuerySet[WebhookEndpoint]) -> int:
    """Delete webhooks and their deliveries, after the events that are being sent to them; return their number."""
    list(endpoints.select_for_update().order_by("pk").values_list("pk"))  # waits: their deliveries are found too
    return endpoints.delete()[1].get("webhooks.WebhookEndpoint", 0)


def _known_events(events: Sequence[str]) -> list[str]:
    if unknown := [event for event in events if event not in Event.values]:
        known = ", ".join(Event.values)
        raise WebhookEventUnknown(f"there is no event {unknown[0]!r}; the events are {known}", param="events")
    return sorted(set(events))
