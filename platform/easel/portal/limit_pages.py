"""The limits of tenants and keys, and the block lists."""

from typing import Any

from django.contrib import admin
from django.db.models import Q

from easel.actions import limits
from easel.portal import cells
from easel.portal.pages import Page, Section
from easel.portal.site import portal
from tenants.models import BlockListEntry, Tenant
from tenants.quotas import LIMITS


def quotas_section(tenant: Tenant) -> Section:
    """The tenant's limits and those of its keys."""
    quotas = (
        tenant.quotas.filter(Q(api_key=None) | Q(api_key__revoked_at=None)).select_related("api_key").order_by("id")
    )
    return Section(
        "Limits",
        (
            "Owner",
            "Requests a minute",
            "Unfinished jobs",
            "Waiting jobs",
            "Image units a month",
            "Pixels",
            "Steps",
        ),
        [
            (
                "the account" if quota.api_key is None else cells.link(quota.api_key),
                *(_limit(getattr(quota, limit)) for limit in LIMITS),
            )
            for quota in quotas
        ],
        "No limits: set some.",
    )


def _limit(value: Any) -> str:
    return cells.NOTHING if value is None else f"{value:,.10g}"


@admin.register(BlockListEntry, site=portal)
class BlockListPage(Page):
    list_display = ("pattern", "kind", "applies_to", "reason", "created_at")
    list_filter = ("kind", ("tenant", admin.EmptyFieldListFilter))
    search_fields = ("pattern", "tenant__slug")
    list_select_related = ("tenant",)
    ordering = ("-created_at", "-id")
    fields = ("pattern", "kind", "applies_to", "reason", "created_at")
    readonly_fields = ("applies_to",)
    list_actions = (limits.BLOCK,)
    row_actions = (limits.UNBLOCK,)

    @admin.display(description="applies to")
    def applies_to(self, entry: BlockListEntry) -> str:
        return entry.tenant.slug if entry.tenant else "everybody"
