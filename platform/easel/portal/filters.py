"""Filters by a whole value that is typed or linked to, because a list of thousands is no choice."""

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest


class TextFilter(admin.SimpleListFilter):
    """Rows whose `field` is exactly what was typed."""

    template = "portal/text_filter.html"
    field: str

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("", "")]

    def has_output(self) -> bool:
        return True

    def choices(self, changelist: Any) -> Iterator[Any]:
        yield {"value": self.value() or "", "name": self.parameter_name}

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        wanted = (self.value() or "").strip().replace("\x00", "")
        return queryset.filter(**{self.field: wanted}) if wanted else queryset


class TenantFilter(TextFilter):
    title = parameter_name = "tenant"
    field = "tenant__slug"


class ActorFilter(TextFilter):
    title = parameter_name = field = "actor"


class ActionFilter(TextFilter):
    title = parameter_name = field = "action"
