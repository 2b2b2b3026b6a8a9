"""Reads of a tenant's webhooks; another tenant's are not found."""

from datetime import datetime
from uuid import UUID

from django.db.models import Min, QuerySet

from core.pages import page_after
from easel.webhooks.errors import DeliveryNotFound, WebhookNotFound
from easel.webhooks.models import WebhookDelivery, WebhookEndpoint, WebhookTotal
from tenants.models import Tenant


def endpoints_page(*, tenant: Tenant, limit: int, after: UUID | None) -> tuple[list[WebhookEndpoint], bool]:
    """List webhooks, newest first, those after `after`; return True too if more follow. Raises `WebhookNotFound`."""
    last = endpoint_get(tenant=tenant, endpoint_id=after) if after is not None else None
    rows = WebhookEndpoint.objects.filter(tenant=tenant)
    return page_after(rows, order=("-created_at", "-id"), after=last, limit=limit)


def endpoint_get(*, tenant: Tenant, endpoint_id: UUID) -> WebhookEndpoint:
    """Find a webhook. Raises `WebhookNotFound`."""
    found = WebhookEndpoint.objects.select_related("tenant").filter(tenant=tenant, pk=endpoint_id).first()
    if found is None:
        raise WebhookNotFound
    return found


def deliveries_page(
    *, endpoint: WebhookEndpoint, limit: int, after: UUID | None, state: str | None = None
) -> tuple[list[WebhookDelivery], bool]:
    """List deliveries, newest first, those after `after`; return True too if more follow.

    Raises `DeliveryNotFound`.
    """
    last = delivery_get(endpoint=endpoint, delivery_id=after) if after is not None else None
    rows = endpoint.deliveries.select_related("message").prefetch_related("tries")
    if state is not None:
        rows = rows.filter(state=state)
    return page_after(rows, order=("-created_at", "-id"), after=last, limit=limit)


def delivery_get(*, endpoint: WebhookEndpoint, delivery_id: UUID) -> WebhookDelivery:
    """Find a delivery. Raises `DeliveryNotFound`."""
    found = endpoint.deliveries.select_related("message").filter(pk=delivery_id).first()
    if found is None:
        raise DeliveryNotFound
    return found


def pending() -> int:
    """Count the pending deliveries of enabled webhooks."""
    return _pending().count()


def overdue_seconds(now: datetime) -> float:
    """Return the longest time that a pending delivery has been due; 0 if none is due."""
    due = _pending().aggregate(due=Min("next_at"))["due"]
    return 0.0 if due is None else max(0.0, (now - due).total_seconds())


def attempts_by_outcome() -> dict[str, int]:
    """Totals of all attempts, by outcome."""
    counted = dict(WebhookTotal.objects.values_list("outcome", "attempts"))
    return {outcome: counted.get(outcome, 0) for outcome in WebhookTotal.Outcome.values}


def _pending() -> "QuerySet[WebhookDelivery]":
    return WebhookDelivery.objects.filter(state=WebhookDelivery.State.PENDING, endpoint__disabled_at=None)
