"""The limits of tenants and keys, the days that data is retained, and the block lists."""

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db.models import Q

from easel.actions import limits
from easel.portal import cells
from easel.portal.pages import Page, Section, column, register
from tenants.models import BlockListEntry, Tenant
from tenants.quotas import LIMITS
from tenants.retention import retention_of


def quotas_section(tenant: Tenant) -> Section:
    """Return the tenant's limits and those of its keys."""
    quotas = tenant.quotas.filter(Q(api_key=None) | Q(api_key__revoked_at=None))
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
            "Stored files",
            "Stored bytes",
            "Uploads a minute",
        ),
        [
            (
                "the account" if quota.api_key is None else cells.link(quota.api_key),
                *(_limit(getattr(quota, limit)) for limit in LIMITS),
            )
            for quota in quotas.select_related("api_key").order_by("id")
        ],
        "No limits: set some.",
    )


def _limit(value: Any) -> str:
    return cells.NOTHING if value is None else f"{value:,.10g}"


def retention_section(tenant: Tenant) -> Section:
    """Return the days that apply, and whether they are the platform's or the tenant's own."""
    holds = retention_of(tenant, default=settings.EASEL)
    kinds = (("Images", holds.output_days, tenant.output_days), ("Texts of jobs", holds.job_days, tenant.job_days))
    rows = [(what, f"{days} days", "the platform's" if own is None else "its own") for what, days, own in kinds]
    return Section("Retention", ("Data", "Retained for", "Rule"), rows, "")


@register(BlockListEntry)
class BlockListPage(Page):
    empty = (
        "Phrases and patterns that no prompt may contain appear here. An operator adds one here, or by "
        "easel block-list add."
    )
    list_display = ("pattern", "kind", "applies_to", "reason", "created_at")
    list_filter = ("kind", ("tenant", admin.EmptyFieldListFilter))
    search_fields = ("pattern", "tenant__slug")
    list_select_related = ("tenant",)
    fields = ("pattern", "kind", "applies_to", "reason", "created_at")
    list_actions = (limits.block,)
    row_actions = (limits.unblock,)

    applies_to = column("applies to", lambda entry: entry.tenant.slug if entry.tenant else "everybody")
