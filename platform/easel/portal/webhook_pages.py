"""Webhooks of tenants: their state, their deliveries, and each delivery's attempts."""

from collections.abc import Iterable

from django.contrib import admin

from easel.actions import jobs
from easel.portal import cells
from easel.portal.pages import Page, Section, TenantFilter, column, register
from easel.webhooks import queries
from easel.webhooks.delivery import message_id
from easel.webhooks.models import WebhookDelivery, WebhookEndpoint

DELIVERIES = 50


@register(WebhookEndpoint)
class WebhookEndpointPage(Page):
    empty = "A tenant's webhooks appear here once it has made one: POST /v1/webhooks, or easel my webhooks create."
    list_display = ("url", "tenant", "shown_state", "shown_events", "delivered_at")
    list_filter = (TenantFilter, ("disabled_at", admin.EmptyFieldListFilter))
    list_select_related = ("tenant",)
    fields = ("url", "tenant", "shown_state", "shown_events", "delivered_at", "created_at")
    row_actions = (jobs.enable, jobs.disable)

    @admin.display(description="state")
    def shown_state(self, endpoint: WebhookEndpoint) -> str:
        if endpoint.disabled_at is None:
            return cells.state("active")
        return f"disabled {cells.when(endpoint.disabled_at)}: {endpoint.disabled_reason}"

    shown_events = column("events", lambda endpoint: ", ".join(endpoint.events) or "all")

    def sections(self, row: WebhookEndpoint) -> Iterable[Section]:
        found, _ = queries.deliveries_page(endpoint=row, limit=DELIVERIES, after=None)
        yield Section.of(
            f"Latest deliveries (up to {DELIVERIES})",
            found,
            {
                "At": lambda one: cells.when(one.created_at),
                "Event": lambda one: cells.link(one, one.message.event),
                "State": lambda one: cells.state(one.state),
                "Attempts": lambda one: cells.number(len(one.tries.all())),
                "Latest": lambda one: next((attempt.outcome for attempt in reversed(one.tries.all())), cells.NOTHING),
            },
            "Nothing has been sent to it.",
        )


@register(WebhookDelivery)
class WebhookDeliveryPage(Page):
    """Reached from its webhook."""

    empty = "The messages of webhooks appear here once an event of a tenant with a webhook has happened."
    list_display = ("created_at", "endpoint", "shown_event", "shown_state")
    list_filter = ("state",)
    list_select_related = ("endpoint", "message")
    fields = ("shown_endpoint", "shown_event", "shown_id", "shown_data", "shown_state", "created_at", "next_at")
    row_actions = (jobs.replay,)

    shown_endpoint = column("webhook", lambda delivery: cells.link(delivery.endpoint))
    shown_event = column("event", lambda delivery: delivery.message.event)
    shown_id = column("webhook-id", lambda delivery: cells.code(message_id(delivery.message)))
    shown_data = column("data", lambda delivery: cells.pairs(delivery.message.data))

    def sections(self, row: WebhookDelivery) -> Iterable[Section]:
        yield Section.of(
            "Attempts",
            row.tries.all(),
            {
                "At": lambda one: cells.when(one.sent_at),
                "Answer": lambda one: one.status or cells.NOTHING,
                "Outcome": lambda one: one.outcome,
                "Seconds": lambda one: cells.seconds(one.seconds),
                "Response": lambda one: one.response,
            },
            "None yet.",
        )
