"""What every page of the portal is: a read-only table, one row's page with sections, and acts that call a verb."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin import ShowFacets
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import render
from django.urls import path, reverse
from unfold.admin import ModelAdmin
from unfold.paginator import InfinitePaginator
from unfold.widgets import INPUT_CLASSES, SELECT_CLASSES, TEXTAREA_CLASSES

from core.audit import audit_record
from core.errors import DomainError
from tenants.models import Tenant


@dataclass(frozen=True, slots=True)
class Operator:
    """Who acts, and when; what they do goes on record in the transaction of the act."""

    name: str
    now: datetime

    @property
    def actor(self) -> str:
        return f"operator:{self.name}"

    def record(
        self, action: str, subject: str, *, tenant: Tenant | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        audit_record(actor=self.actor, action=action, subject=subject, tenant=tenant, details=details, now=self.now)


@dataclass(frozen=True, slots=True)
class Done:
    """What an act came to; a secret is shown on a page of its own, this once. `gone`: the row is no more."""

    message: str
    secret: str = ""
    show: Model | None = None
    gone: bool = False


class ActForm(forms.Form):
    """What an act asks for. `row` is what it is done to; None where it makes something new."""

    def __init__(self, *args: Any, row: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.row = row
        self.prepare()
        for named in self.fields.values():
            if isinstance(named.widget, forms.CheckboxSelectMultiple):
                continue
            classes = INPUT_CLASSES
            if isinstance(named.widget, forms.Select):
                classes = SELECT_CLASSES
            elif isinstance(named.widget, forms.Textarea):
                classes = TEXTAREA_CLASSES
            named.widget.attrs["class"] = " ".join(classes)

    def prepare(self) -> None:
        """For forms that depend on their row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Something that may be done on a page: `perform(row, operator, **fields of the form)` calls one verb.

    An act without a form's fields is one click.
    """

    name: str
    label: str
    permission: str
    perform: Callable[..., Done]
    form: type[ActForm] = ActForm
    applies: Callable[[Any], bool] = field(default=lambda row: True)
    explain: str = ""
    danger: bool = False

    @property
    def one_click(self) -> bool:
        return self.form is ActForm


@dataclass(frozen=True, slots=True)
class Section:
    """A titled table below a row's fields; `empty` says what to do when there is nothing."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[Any]]
    empty: str
    images: Sequence[str] = ()


class Page(ModelAdmin):
    """A table that nobody edits row by row, superusers neither: what may be done to it are its acts."""

    acts: tuple[Act, ...] = ()
    list_acts: tuple[Act, ...] = ()
    actions = None
    # No count of a whole table for the sake of a page number.
    paginator = InfinitePaginator
    show_full_result_count = False
    show_facets = ShowFacets.NEVER
    list_per_page = 50
    list_fullwidth = True
    list_filter_sheet = False
    list_filter_submit = True
    compressed_fields = True
    change_form_outer_before_template = "portal/acts.html"
    change_form_outer_after_template = "portal/sections.html"
    list_before_template = "portal/list_acts.html"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def sections(self, row: Any) -> Iterable[Section]:
        """The tables below a row's fields."""
        return ()

    def get_urls(self) -> list[Any]:
        act = self.admin_site.admin_view(self.act_view)
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        return [
            path("act/<slug:act_name>", act, name=f"{name}_list_act"),
            path("<path:object_id>/act/<slug:act_name>", act, name=f"{name}_act"),
            *super().get_urls(),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponseBase:
        offered = [
            (act, reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_list_act", args=[act.name]))
            for act in self.list_acts
            if request.user.has_perm(act.permission)
        ]
        title = str(self.opts.verbose_name_plural).capitalize()
        answer: HttpResponseBase = super().changelist_view(
            request, {"title": title, "acts": offered, **(extra_context or {})}
        )
        return answer

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponseBase:
        row = self.get_object(request, unquote(object_id or ""))
        context = {} if row is None else {"acts": self._offered(request, row), "sections": list(self.sections(row))}
        answer: HttpResponseBase = super().changeform_view(
            request, object_id, form_url, {**context, **(extra_context or {})}
        )
        return answer

    def _offered(self, request: HttpRequest, row: Any) -> list[tuple[Act, str]]:
        return [
            (act, self._act_url(act, row))
            for act in self.acts
            if request.user.has_perm(act.permission) and act.applies(row)
        ]

    def _act_url(self, act: Act, row: Any) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_act", args=[row.pk, act.name])

    def act_view(self, request: HttpRequest, act_name: str, object_id: str | None = None) -> HttpResponseBase:
        """GET shows an act's form; POST performs it, with its record, in one transaction."""
        acts = self.acts if object_id else self.list_acts
        act = next((act for act in acts if act.name == act_name), None)
        row = self.get_object(request, unquote(object_id)) if object_id else None
        if act is None or (object_id and row is None):
            raise Http404
        if not (self.has_view_permission(request, row) and request.user.has_perm(act.permission)):
            raise PermissionDenied
        if row is not None and not act.applies(row):
            messages.error(request, f"{act.label}: not possible as things are now, which this page shows.")
            return HttpResponseRedirect(self._back(row))
        form = act.form(request.POST if request.method == "POST" else None, row=row)
        if request.method == "POST" and form.is_valid():
            operator = Operator(request.user.get_username(), datetime.now(UTC))
            try:
                with transaction.atomic():
                    done = act.perform(row, operator, **form.cleaned_data)
            except DomainError as error:
                if act.one_click:
                    messages.error(request, str(error))
                    return HttpResponseRedirect(self._back(row))
                form.add_error(error.param if error.param in form.fields else None, str(error))
            else:
                back = self._back(None if done.gone else done.show or row)
                if done.secret:
                    return self._page(request, "portal/secret.html", act, row, done=done, back=back)
                messages.success(request, done.message)
                return HttpResponseRedirect(back)
        return self._page(request, "portal/act.html", act, row, form=form, back=self._back(row))

    def _back(self, row: Model | None) -> str:
        meta = row._meta if row is not None else self.opts
        if row is None:
            return reverse(f"admin:{meta.app_label}_{meta.model_name}_changelist")
        return reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[row.pk])

    def _page(self, request: HttpRequest, template: str, act: Act, row: Any, **context: Any) -> HttpResponse:
        title = f"{act.label}: {row}" if row is not None else act.label
        each = self.admin_site.each_context(request)
        answer = render(request, template, {**each, "opts": self.opts, "title": title, "act": act, **context})
        answer["Cache-Control"] = "no-store"
        return answer
