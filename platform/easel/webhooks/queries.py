"""Reads of a tenant's webhooks; what is another's is not found."""

from datetime import datetime
from uuid import UUID

from django.db.models import Min, Q, QuerySet

from easel.webhooks.errors import DeliveryNotFound, WebhookNotFound
from easel.webhooks.models import WebhookDelivery, WebhookEndpoint, WebhookTotal
from tenants.models import Tenant


def endpoints_page(*, tenant: Tenant, limit: int, after: UUID | None) -> tuple[list[WebhookEndpoint], bool]:
    """The newest first, those after the one named `after`; and whether there are more."""
    rows = WebhookEndpoint.objects.filter(tenant=tenant).order_by("-created_at", "-id")
    if after is not None:
        last = endpoint_get(tenant=tenant, endpoint_id=after)
        rows = rows.filter(Q(created_at__lt=last.created_at) | Q(created_at=last.created_at, id__lt=last.id))
    found = list(rows[: limit + 1])
    return found[:limit], len(found) > limit


def endpoint_get(*, tenant: Tenant, endpoint_id: UUID) -> WebhookEndpoint:
    """Raises `WebhookNotFound`."""
    found = WebhookEndpoint.objects.select_related("tenant").filter(tenant=tenant, pk=endpoint_id).first()
    if found is None:
        raise WebhookNotFound
    return found


def deliveries_page(
    *, endpoint: WebhookEndpoint, limit: int, after: UUID | None, state: str | None = None
) -> tuple[list[WebhookDelivery], bool]:
    """The newest first, those after the one named `after`; and whether there are more."""
    rows = endpoint.deliveries.select_related("message").prefetch_related("tries").order_by("-created_at", "-id")
    if state is not None:
        rows = rows.filter(state=state)
    if after is not None:
        last = delivery_get(endpoint=endpoint, delivery_id=after)
        rows = rows.filter(Q(created_at__lt=last.created_at) | Q(created_at=last.created_at, id__lt=last.id))
    found = list(rows[: limit + 1])
    return found[:limit], len(found) > limit


def delivery_get(*, endpoint: WebhookEndpoint, delivery_id: UUID) -> WebhookDelivery:
    """Raises `DeliveryNotFound`."""
    found = endpoint.deliveries.select_related("message").filter(pk=delivery_id).first()
    if found is None:
        raise DeliveryNotFound
    return found


def pending() -> int:
    """Deliveries that are on their way to webhooks which are enabled."""
    return _pending().count()


def overdue_seconds(now: datetime) -> float:
    """How long the one of them that is due longest waits for its next attempt; 0 when none is due."""
    due = _pending().aggregate(due=Min("next_at"))["due"]
    return 0.0 if due is None else max(0.0, (now - due).total_seconds())


def attempts_by_outcome() -> dict[str, int]:
    """How many attempts there ever were, by what came of them."""
    counted = dict(WebhookTotal.objects.values_list("outcome", "attempts"))
    return {outcome: counted.get(outcome, 0) for outcome in WebhookTotal.Outcome.values}


def _pending() -> "QuerySet[WebhookDelivery]":
    return WebhookDelivery.objects.filter(state=WebhookDelivery.State.PENDING, endpoint__disabled_at=None)
