"""The base of every page of the portal: a read-only table, one row's page with sections, and its actions."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import render
from django.urls import path, reverse
from django.utils.text import capfirst
from unfold import widgets
from unfold.admin import ModelAdmin
from unfold.paginator import InfinitePaginator

from core.errors import DomainError
from core.text import text_storable
from easel.actions.action import Action, ActionForm, action_perform
from easel.portal import cells
from easel.portal.site import portal

register = partial(admin.register, site=portal)
_CLASSES = {
    forms.CheckboxInput: widgets.CHECKBOX_CLASSES,
    forms.Select: widgets.SELECT_CLASSES,
    forms.Textarea: widgets.TEXTAREA_CLASSES,
    forms.Widget: widgets.INPUT_CLASSES,
}


def _styled(form: ActionForm) -> ActionForm:
    """Give the inputs of a form the theme's look."""
    for field in form.fields.values():
        widget: Any = field.widget
        if isinstance(widget, forms.CheckboxSelectMultiple):
            field.widget = widgets.UnfoldAdminCheckboxSelectMultipleWidget(choices=widget.choices)
            continue
        classes = next(classes for kind, classes in _CLASSES.items() if isinstance(widget, kind))
        widget.attrs["class"] = " ".join(classes)
    return form


@dataclass(frozen=True, slots=True)
class Section:
    """A titled table below a row's fields; `empty` says what to do when there is nothing."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[Any]]
    empty: str
    images: Sequence[str] = ()

    @classmethod
    def of(cls, title: str, rows: Iterable[Any], columns: Mapping[str, Callable[[Any], Any]], empty: str) -> "Section":
        """Return a table of `rows`; `columns` has the function that makes each header's cell."""
        return cls(title, tuple(columns), [[cell(row) for cell in columns.values()] for row in rows], empty)


def column(description: str, text: Callable[[Any], str], *, ordering: str | None = None) -> Any:
    """Return a computed column of a list, which a row's page may show as a field too."""
    return staticmethod(admin.display(text, description=description, ordering=ordering))


class TextFilter(admin.SimpleListFilter):
    """Matches rows whose `field` is exactly the text that was typed or linked to.

    There may be thousands of values, too many for a list to choose from.
    """

    template = "portal/text_filter.html"
    field: str

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("", "")]

    def has_output(self) -> bool:
        return True

    def choices(self, changelist: Any) -> Iterator[Any]:
        yield {"value": self.value() or "", "name": self.parameter_name}

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        wanted = text_storable(self.value() or "").strip()
        return queryset.filter(**{self.field: wanted}) if wanted else queryset


class TenantFilter(TextFilter):
    title = parameter_name = "tenant"
    field = "tenant__slug"


class ActorFilter(TextFilter):
    title = parameter_name = field = "actor"


class ActionFilter(TextFilter):
    title = parameter_name = field = "action"


class Page(ModelAdmin):
    """A table that nobody edits row by row, not even superusers: its actions are what may be done to it."""

    empty: str  # what stands in the place of a list without rows: what appears there, and how to make one
    row_actions: tuple[Action, ...] = ()
    list_actions: tuple[Action, ...] = ()
    ordering: tuple[str, ...] = ("-created_at", "-id")
    actions = None  # Django's own, on many rows at once
    # No count of a whole table for the sake of a page number.
    paginator = InfinitePaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    list_per_page = 50
    list_fullwidth = True
    list_filter_sheet = False
    list_filter_submit = True
    compressed_fields = True
    change_form_outer_before_template = "portal/actions.html"
    change_form_outer_after_template = "portal/sections.html"
    list_before_template = "portal/actions.html"

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    has_change_permission = has_delete_permission = has_add_permission

    shown_state = column("state", lambda row: cells.state(row.state))

    def sections(self, row: Any) -> Iterable[Section]:
        """Return the tables below a row's fields."""
        return ()

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.action_view)
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        return [
            path("action/<str:action_name>", view, name=f"{name}_list_action"),
            path("<path:object_id>/action/<str:action_name>", view, name=f"{name}_action"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponseBase:
        title = capfirst(self.opts.verbose_name_plural)
        context = {"title": title, "offered_actions": self._offered(request, self.list_actions)}
        answer: HttpResponseBase = super().changelist_view(request, {**context, **(extra_context or {})})
        return answer

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *, obj: Any, **options: Any
    ) -> HttpResponseBase:
        context["offered_actions"] = self._offered(request, self.row_actions, obj)
        context["sections"] = list(self.sections(obj))
        answer: HttpResponseBase = super().render_change_form(request, context, obj=obj, **options)
        return answer

    def _offered(self, request: HttpRequest, actions: Iterable[Action], row: Any = None) -> list[tuple[Action, str]]:
        view, keys = ("list_action", []) if row is None else ("action", [row.pk])
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_{view}"
        return [
            (action, reverse(name, args=[*keys, action.name]))
            for action in actions
            if request.user.has_perm(action.permission) and action.applies(row)
        ]

    def action_view(self, request: HttpRequest, action_name: str, object_id: str | None = None) -> HttpResponseBase:
        """GET shows an action's form; POST performs the action."""
        actions = self.row_actions if object_id else self.list_actions
        action = next((action for action in actions if action.name == action_name), None)
        row = self.get_object(request, unquote(object_id)) if object_id else None
        if action is None or (object_id and row is None):
            raise Http404
        if not (self.has_view_permission(request, row) and request.user.has_perm(action.permission)):
            raise PermissionDenied
        if row is not None and not action.applies(row):
            messages.error(request, f"{action.label}: not possible as things are now, which this page shows.")
            return HttpResponseRedirect(self._back(row))
        form = _styled(action.form(request.POST if request.method == "POST" else None, row=row))
        if request.method == "POST" and form.is_valid():
            actor = f"operator:{request.user.get_username()}"
            try:
                done = action_perform(action, row, actor=actor, now=datetime.now(UTC), fields=form.cleaned_data)
            except DomainError as error:
                if action.is_one_click:
                    messages.error(request, str(error))
                    return HttpResponseRedirect(self._back(row))
                form.add_error(error.param if error.param in form.fields else None, str(error))
            else:
                back = self._back(None if done.is_gone else done.show or row)
                if done.secret:
                    return self._page(request, "portal/secret.html", action, row, done=done, back=back)
                messages.success(request, done.message)
                return HttpResponseRedirect(back)
        return self._page(request, "portal/action.html", action, row, form=form, back=self._back(row))

    def _back(self, row: Model | None) -> str:
        if row is None:
            return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")
        return cells.page_of(row)

    def _page(self, request: HttpRequest, template: str, action: Action, row: Any, **context: Any) -> HttpResponse:
        title = f"{action.label}: {row}" if row is not None else action.label
        each = self.admin_site.each_context(request)
        answer = render(request, template, {**each, "opts": self.opts, "title": title, "action": action, **context})
        answer["Cache-Control"] = "no-store"
        return answer
