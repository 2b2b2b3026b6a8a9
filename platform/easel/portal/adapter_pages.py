"""Tenants' LoRA adapters: what validation found in an upload, and an image that it made."""

from collections.abc import Iterable

from django.contrib import admin
from django.db.models import Count, Max, QuerySet
from django.http import HttpRequest

from easel.actions import serving
from easel.catalog.models import Adapter
from easel.jobs.models import Output, State
from easel.jobs.outputs import PORTAL_LINKS
from easel.portal import cells
from easel.portal.pages import Page, Section, column, register


@register(Adapter)
class AdapterPage(Page):
    empty = (
        "A tenant's LoRA adapters appear here once it has uploaded one: POST /v1/adapters, or easel my adapters upload."
    )
    list_display = ("name", "tenant", "model", "newest", "version_count", "shown_state", "created_at")
    list_filter = (("retired_at", admin.EmptyFieldListFilter), "model")
    search_fields = ("name", "tenant__slug")
    list_select_related = ("tenant", "model")
    ordering = ("tenant__slug", "name")
    fields = ("name", "tenant", "model", "shown_state", "created_at", "retired_at")
    row_actions = (serving.retire_adapter,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Adapter]:
        adapters: QuerySet[Adapter] = super().get_queryset(request)
        return adapters.annotate(newest_number=Max("versions__number"), versions_counted=Count("versions"))

    newest = column(
        "newest version", lambda adapter: cells.NOTHING if adapter.newest_number is None else str(adapter.newest_number)
    )
    version_count = column("versions", lambda adapter: cells.number(adapter.versions_counted))
    shown_state = column("state", lambda adapter: cells.state("retired" if adapter.retired_at else "active"))

    def sections(self, row: Adapter) -> Iterable[Section]:
        used = Output.objects.filter(
            job__tenant=row.tenant,
            job__adapters__adapter_version__adapter=row,
            job__state=State.SUCCEEDED,
            deleted_at=None,
        )
        newest = used.order_by("-job__created_at", "index").first()
        yield Section(
            "Newest image generated with it",
            (),
            [],
            f"Nothing was generated with it yet: a request with adapters: [{{name: {row.name}}}] shows it.",
            images=[PORTAL_LINKS.url(newest.storage_key)] if newest else [],
        )
        yield Section.of(
            "Versions, as validation found them",
            row.versions.order_by("-number"),
            {
                "Version": lambda version: version.number,
                "Greatest rank": lambda version: version.rank_max,
                "Modules changed": lambda version: version.modules,
                "Size": lambda version: cells.size(version.size_bytes),
                "SHA-256 of the upload": lambda version: cells.code(version.upload_sha256[:16] + "…"),
                "SHA-256 as served": lambda version: cells.code(version.sha256[:16] + "…"),
                "Uploaded": lambda version: cells.when(version.created_at),
            },
            "No version was uploaded yet.",
        )
