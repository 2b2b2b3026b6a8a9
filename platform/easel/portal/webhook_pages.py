"""Webhooks of tenants: their state, their deliveries, and each delivery's attempts."""

from collections.abc import Iterable

from django.contrib import admin

from easel.actions import jobs
from easel.portal import cells
from easel.portal.filters import TenantFilter
from easel.portal.pages import Page, Section
from easel.portal.site import portal
from easel.webhooks import queries
from easel.webhooks.delivery import message_id
from easel.webhooks.models import WebhookDelivery, WebhookEndpoint

DELIVERIES = 50


@admin.register(WebhookEndpoint, site=portal)
class WebhookEndpointPage(Page):
    list_display = ("url", "tenant", "shown_state", "shown_events", "delivered_at")
    list_filter = (TenantFilter, ("disabled_at", admin.EmptyFieldListFilter))
    list_select_related = ("tenant",)
    ordering = ("-created_at", "-id")
    fields = ("url", "tenant", "shown_state", "shown_events", "delivered_at", "created_at")
    readonly_fields = fields
    row_actions = (jobs.ENABLE, jobs.DISABLE)

    @admin.display(description="state")
    def shown_state(self, endpoint: WebhookEndpoint) -> str:
        if endpoint.disabled_at is None:
            return cells.state("active")
        return f"disabled {cells.when(endpoint.disabled_at)}: {endpoint.disabled_reason}"

    @admin.display(description="events")
    def shown_events(self, endpoint: WebhookEndpoint) -> str:
        return ", ".join(endpoint.events) or "all"

    def sections(self, row: WebhookEndpoint) -> Iterable[Section]:
        found, _ = queries.deliveries_page(endpoint=row, limit=DELIVERIES, after=None)
        yield Section(
            f"Latest deliveries (up to {DELIVERIES})",
            ("At", "Event", "State", "Attempts", "Latest"),
            [
                (
                    cells.when(one.created_at),
                    cells.link(one, one.message.event),
                    cells.state(one.state),
                    cells.number(len(tries)),
                    tries[-1].outcome if tries else cells.NOTHING,
                )
                for one in found
                for tries in [list(one.tries.all())]
            ],
            "Nothing has been sent to it.",
        )


@admin.register(WebhookDelivery, site=portal)
class WebhookDeliveryPage(Page):
    """Reached from its webhook."""

    list_display = ("created_at", "endpoint", "shown_event", "shown_state")
    list_filter = ("state",)
    list_select_related = ("endpoint", "message")
    ordering = ("-created_at", "-id")
    fields = ("shown_endpoint", "shown_event", "shown_id", "shown_data", "shown_state", "created_at", "next_at")
    readonly_fields = fields
    row_actions = (jobs.REPLAY,)

    @admin.display(description="webhook")
    def shown_endpoint(self, delivery: WebhookDelivery) -> str:
        return cells.link(delivery.endpoint)

    @admin.display(description="event")
    def shown_event(self, delivery: WebhookDelivery) -> str:
        return delivery.message.event

    @admin.display(description="webhook-id")
    def shown_id(self, delivery: WebhookDelivery) -> str:
        return cells.code(message_id(delivery.message))

    @admin.display(description="data")
    def shown_data(self, delivery: WebhookDelivery) -> str:
        return cells.pairs(delivery.message.data)

    @admin.display(description="state")
    def shown_state(self, delivery: WebhookDelivery) -> str:
        return cells.state(delivery.state)

    def sections(self, row: WebhookDelivery) -> Iterable[Section]:
        yield Section(
            "Attempts",
            ("At", "Answer", "Outcome", "Seconds", "Response"),
            [
                (
                    cells.when(one.sent_at),
                    one.status or cells.NOTHING,
                    one.outcome,
                    cells.seconds(one.seconds),
                    one.response,
                )
                for one in row.tries.all()
            ],
            "None yet.",
        )
