"""Webhooks of tenants: which are on, why one is not, what was sent to each and how that went."""

from collections.abc import Iterable

from django.contrib import admin

from easel.portal import cells
from easel.portal.filters import TenantFilter
from easel.portal.pages import Act, Done, Operator, Page, Section
from easel.portal.site import portal
from easel.webhooks import queries
from easel.webhooks.delivery import message_id
from easel.webhooks.endpoints import endpoint_change
from easel.webhooks.models import WebhookDelivery, WebhookEndpoint
from easel.webhooks.outbox import delivery_replay

DELIVERIES = 50


def _switch(enabled: bool) -> Act:
    def perform(endpoint: WebhookEndpoint, operator: Operator) -> Done:
        endpoint_change(endpoint, changes={"enabled": enabled}, now=operator.now)
        action = "webhook.enable" if enabled else "webhook.disable"
        operator.record(action, str(endpoint.pk), tenant=endpoint.tenant, details={"url": endpoint.url})
        off = "Off: what was on its way waits until it is on again; what happens meanwhile is not told."
        return Done("On: what waited is sent now." if enabled else off)

    return Act(
        name="enable" if enabled else "disable",
        label="Enable" if enabled else "Disable",
        permission="webhooks.change_webhookendpoint",
        perform=perform,
        applies=lambda endpoint: (endpoint.disabled_at is not None) == enabled,
        danger=not enabled,
    )


def _replay(delivery: WebhookDelivery, operator: Operator) -> Done:
    delivery_replay(delivery, now=operator.now)
    operator.record("webhook.replay", str(delivery.pk), tenant=delivery.endpoint.tenant)
    return Done("It is sent again, under the same id.")


@admin.register(WebhookEndpoint, site=portal)
class WebhookEndpointPage(Page):
    list_display = ("url", "tenant", "shown_state", "shown_events", "delivered_at")
    list_filter = (TenantFilter, ("disabled_at", admin.EmptyFieldListFilter))
    list_select_related = ("tenant",)
    ordering = ("-created_at", "-id")
    fields = ("url", "tenant", "shown_state", "shown_events", "delivered_at", "created_at")
    readonly_fields = fields
    acts = (_switch(True), _switch(False))

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
    acts = (Act(name="replay", label="Send again", permission="webhooks.change_webhookendpoint", perform=_replay),)

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
            ("At", "Answer", "Outcome", "Seconds", "What it said"),
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
