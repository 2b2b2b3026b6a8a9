"""The audit log, which actions write and nobody edits."""

from unfold.contrib.filters.admin import RangeDateFilter

from core.models import AuditEvent
from easel.portal import cells
from easel.portal.pages import ActionFilter, ActorFilter, Page, TenantFilter, column, register


@register(AuditEvent)
class AuditEventPage(Page):
    empty = "What operators, commands and the platform change is recorded here, from the first change on."
    list_display = ("recorded_at", "actor", "action", "tenant", "subject", "shown_details")
    list_filter = (TenantFilter, ActorFilter, ActionFilter, ("recorded_at", RangeDateFilter))
    list_select_related = ("tenant",)
    ordering = ("-recorded_at", "-id")
    fields = ("recorded_at", "actor", "action", "tenant", "subject", "shown_details")

    shown_details = column("details", lambda event: cells.pairs(event.details))
