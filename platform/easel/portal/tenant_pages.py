"""Tenants and their keys."""

import re
import uuid
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.db.models import BigIntegerField, Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.utils import timezone
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from billing.models import Entry, LedgerAccount
from core.errors import DomainError
from core.models import AuditEvent
from easel.jobs.models import Job
from easel.portal import cells
from easel.portal.contract_pages import END_CONTRACT, MAKE_CONTRACT, contracts_section
from easel.portal.credit_pages import CREDIT_ACTS, SET_BUDGET, credit_sections
from easel.portal.limit_pages import SET_LIMITS, quotas_section
from easel.portal.pages import Act, ActForm, Done, Operator, Page, Section
from easel.portal.retention_pages import ERASE, SET_RETENTION, retention_section
from easel.portal.site import portal
from tenants.accounts import project_create, tenant_create, tenant_resume, tenant_suspend
from tenants.keys import key_issue, key_revoke, key_rotate
from tenants.models import (
    ApiKey,
    Project,
    Scope,
    Tenant,
)

MOVEMENTS = 20


class SentBefore(DomainError):
    """This form was sent before and made a key, whose text is shown only once: make another if needed."""

    code, http_status = "sent_before", 409


class TenantForm(ActForm):
    slug = forms.CharField(
        max_length=40, help_text="Lower-case letters, digits and inner hyphens; it can't be changed later."
    )
    name = forms.CharField(max_length=200, required=False, help_text="As people call them.")


class ProjectForm(ActForm):
    slug = forms.CharField(max_length=40, help_text="Lower-case letters, digits and inner hyphens.")
    labels = forms.CharField(
        required=False, widget=forms.Textarea, help_text="One a line, as department=design; reports group by them."
    )

    def clean_labels(self) -> dict[str, str]:
        lines = [line.strip() for line in self.cleaned_data["labels"].splitlines() if line.strip()]
        if not all(re.fullmatch(r"[^=\s]+\s*=\s*\S.*", line) for line in lines):
            raise forms.ValidationError("Each line is a name, an equals sign and a value: department=design")
        found = (line.split("=", 1) for line in lines)
        return {name.strip(): value.strip() for name, value in found}


class KeyForm(ActForm):
    project = forms.ModelChoiceField(queryset=Project.objects.none(), help_text="What its requests are charged to.")
    name = forms.CharField(max_length=100, required=False, help_text="What the key is for.")
    scopes = forms.MultipleChoiceField(
        choices=Scope.choices, initial=Scope.values, widget=UnfoldAdminCheckboxSelectMultipleWidget
    )
    token = forms.UUIDField(widget=forms.HiddenInput, initial=uuid.uuid4)

    def prepare(self) -> None:
        chosen: Any = self.fields["project"]
        chosen.queryset = self.row.projects.order_by("slug")
        chosen.label_from_instance = lambda project: project.slug
        chosen.initial = chosen.queryset.first()


def _create(_row: None, operator: Operator, *, slug: str, name: str) -> Done:
    tenant, _ = tenant_create(slug=slug, name=name, now=operator.now)
    operator.record("tenant.create", slug, tenant=tenant)
    return Done(f"{slug} is made, with the project default. Give it credit and a key.", show=tenant)


def _suspend(tenant: Tenant, operator: Operator) -> Done:
    if tenant_suspend(tenant=tenant, now=operator.now):
        operator.record("tenant.suspend", tenant.slug, tenant=tenant)
    return Done(f"{tenant.slug} is suspended: its keys are refused, its running jobs finish.")


def _resume(tenant: Tenant, operator: Operator) -> Done:
    if tenant_resume(tenant=tenant):
        operator.record("tenant.resume", tenant.slug, tenant=tenant)
    return Done(f"{tenant.slug} may call again.")


def _add_project(tenant: Tenant, operator: Operator, *, slug: str, labels: dict[str, str]) -> Done:
    project_create(tenant=tenant, slug=slug, labels=labels, now=operator.now)
    operator.record("project.create", slug, tenant=tenant, details={"labels": labels})
    return Done(f"{tenant.slug} has the project {slug}.")


def _add_key(
    tenant: Tenant, operator: Operator, *, project: Project, name: str, scopes: list[str], token: uuid.UUID
) -> Done:
    # The lock makes two of the same form queue here, so that the second finds the first's record.
    Tenant.objects.select_for_update().get(pk=tenant.pk)
    if AuditEvent.objects.filter(tenant=tenant, action="key.create", details__token=str(token)).exists():
        raise SentBefore
    key, secret = key_issue(
        project=project, pepper=settings.EASEL.secret_key, scopes=scopes, name=name, now=operator.now
    )
    operator.record(
        "key.create",
        key.key_id,
        tenant=tenant,
        details={"scopes": key.scopes, "project": project.slug, "token": str(token)},
    )
    return Done(f"A key of {tenant.slug} for the project {project.slug}:", secret=secret)


def _revoke(key: ApiKey, operator: Operator) -> Done:
    if key_revoke(key_id=key.key_id, now=operator.now):
        operator.record("key.revoke", key.key_id, tenant=key.tenant)
    return Done(f"{key.key_id} is revoked.")


def _rotate(key: ApiKey, operator: Operator) -> Done:
    made, secret = key_rotate(key=key, pepper=settings.EASEL.secret_key, now=operator.now)
    operator.record("key.rotate", key.key_id, tenant=key.tenant, details={"new": made.key_id})
    return Done(f"The key that replaces {key.key_id}, which ended now:", secret=secret, show=made)


def _balance(kind: LedgerAccount.Kind) -> Any:
    found = LedgerAccount.objects.filter(tenant=OuterRef("pk"), kind=kind, currency=OuterRef("currency"))
    return Coalesce(Subquery(found.values("balance_micros")), 0, output_field=BigIntegerField())


class StateFilter(admin.SimpleListFilter):
    title = parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("active", "Active"), ("suspended", "Suspended")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Tenant]) -> QuerySet[Tenant]:
        if self.value() is None:
            return queryset
        return queryset.filter(suspended_at__isnull=self.value() == "active")


@admin.register(Tenant, site=portal)
class TenantPage(Page):
    list_display = ("slug", "name", "shown_state", "credit", "held", "owed", "jobs_today", "created_at")
    list_filter = (StateFilter,)
    search_fields = ("slug", "name")
    ordering = ("slug",)
    fields = (
        "slug",
        "name",
        "shown_state",
        "currency",
        "fair_share_weight",
        "created_at",
        "suspended_at",
        "erase_requested_at",
        "erased_at",
    )
    readonly_fields = ("shown_state",)
    list_acts = (
        Act(name="create", label="New tenant", permission="tenants.add_tenant", perform=_create, form=TenantForm),
    )
    acts = (
        *CREDIT_ACTS,
        SET_LIMITS,
        MAKE_CONTRACT,
        END_CONTRACT,
        SET_RETENTION,
        Act(name="add-key", label="New key", permission="tenants.add_apikey", perform=_add_key, form=KeyForm),
        Act(
            name="add-project",
            label="New project",
            permission="tenants.add_project",
            perform=_add_project,
            form=ProjectForm,
        ),
        Act(
            name="suspend",
            label="Suspend",
            permission="tenants.change_tenant",
            perform=_suspend,
            applies=lambda tenant: tenant.suspended_at is None,
            explain="Its keys are refused from now on; its running jobs finish.",
            danger=True,
        ),
        Act(
            name="resume",
            label="Resume",
            permission="tenants.change_tenant",
            perform=_resume,
            applies=lambda tenant: tenant.suspended_at is not None and tenant.erase_requested_at is None,
            explain="Lets its keys in again.",
        ),
        ERASE,
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Tenant]:
        midnight = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
        today = Job.objects.filter(
            tenant=OuterRef("pk"), created_at__gte=midnight, created_at__lt=midnight + timedelta(1)
        )
        counted = today.order_by().values("tenant").annotate(count=Count("*")).values("count")
        tenants: QuerySet[Tenant] = super().get_queryset(request)
        return tenants.annotate(
            credit_micros=_balance(LedgerAccount.Kind.CREDIT),
            held_micros=_balance(LedgerAccount.Kind.HELD),
            receivable_micros=_balance(LedgerAccount.Kind.RECEIVABLE),
            jobs_of_today=Coalesce(Subquery(counted), 0),
        )

    @admin.display(description="state")
    def shown_state(self, tenant: Tenant) -> str:
        if tenant.erase_requested_at:
            return cells.state("erased" if tenant.erased_at else "being erased")
        return cells.state("suspended" if tenant.suspended_at else "active")

    @admin.display(ordering="credit_micros")
    def credit(self, tenant: Any) -> str:
        return cells.money(tenant.credit_micros, tenant.currency)

    @admin.display(description="held for running jobs")
    def held(self, tenant: Any) -> str:
        return cells.money(tenant.held_micros, tenant.currency)

    @admin.display(description="owed")
    def owed(self, tenant: Any) -> str:
        return cells.money(-tenant.receivable_micros, tenant.currency) if tenant.receivable_micros else cells.NOTHING

    @admin.display(description="jobs today", ordering="jobs_of_today")
    def jobs_today(self, tenant: Any) -> str:
        return cells.number(tenant.jobs_of_today)

    def sections(self, row: Tenant) -> Iterable[Section]:
        accounts = row.accounts.order_by("kind")
        yield Section(
            "Balances",
            ("LedgerAccount", "Balance", "What it is"),
            [
                (
                    cells.link(account, account.kind),
                    cells.money(account.balance_micros, account.currency),
                    account.get_kind_display(),
                )
                for account in accounts
            ],
            "No money has moved yet: grant credit, without which no job is accepted.",
        )
        yield Section(
            "Projects",
            ("Project", "Labels", "Since"),
            [
                (found.slug, cells.pairs(found.labels), cells.when(found.created_at))
                for found in row.projects.order_by("slug")
            ],
            "No project: add one.",
        )
        yield contracts_section(row)
        yield from credit_sections(row)
        yield quotas_section(row)
        yield retention_section(row)
        yield Section(
            "API keys",
            ("Key", "Name", "Project", "Scopes", "State", "Since"),
            [
                (
                    cells.link(key),
                    key.name or cells.NOTHING,
                    key.project.slug,
                    ", ".join(key.scopes),
                    cells.state("revoked" if key.revoked_at else "active"),
                    cells.when(key.created_at),
                )
                for key in row.api_keys.select_related("project").order_by("-created_at")[:MOVEMENTS]
            ],
            "No key: make one, for the tenant to call with.",
        )
        entries = Entry.objects.filter(account__tenant=row, account__kind=LedgerAccount.Kind.CREDIT)
        yield Section(
            f"Latest movements of credit (up to {MOVEMENTS})",
            ("At", "Kind", "Credit", "Description", "Transaction"),
            [
                (
                    cells.when(entry.transaction.created_at),
                    entry.transaction.kind,
                    cells.money(entry.amount_micros, entry.transaction.currency),
                    entry.transaction.description or cells.NOTHING,
                    cells.link(entry.transaction),
                )
                for entry in entries.select_related("transaction").order_by("-transaction__created_at", "-id")[
                    :MOVEMENTS
                ]
            ],
            "Credit has not moved yet.",
        )
        yield Section(
            "Latest jobs",
            ("Job", "State", "Prompt", "Created"),
            [
                (cells.link(job), cells.state(job.state), job.prompt[:80], cells.when(job.created_at))
                for job in row.jobs.order_by("-created_at", "-id")[:10]
            ],
            "No job yet.",
        )


@admin.register(ApiKey, site=portal)
class ApiKeyPage(Page):
    list_display = ("key_id", "tenant", "project_slug", "name", "shown_scopes", "shown_state", "created_at")
    list_filter = (("revoked_at", admin.EmptyFieldListFilter),)
    search_fields = ("key_id", "tenant__slug")
    list_select_related = ("tenant", "project")
    ordering = ("-created_at", "-id")
    fields = ("key_id", "tenant", "project_slug", "name", "shown_scopes", "shown_state", "created_at", "revoked_at")
    readonly_fields = ("project_slug", "shown_scopes", "shown_state")
    acts = (
        SET_LIMITS,
        SET_BUDGET,
        Act(
            name="rotate",
            label="Rotate",
            permission="tenants.change_apikey",
            perform=_rotate,
            applies=lambda key: key.revoked_at is None,
            explain="Makes a key like this one and revokes this one, at once.",
        ),
        Act(
            name="revoke",
            label="Revoke",
            permission="tenants.change_apikey",
            perform=_revoke,
            applies=lambda key: key.revoked_at is None,
            explain="Ends the key for good.",
            danger=True,
        ),
    )

    @admin.display(description="project")
    def project_slug(self, key: ApiKey) -> str:
        return key.project.slug

    @admin.display(description="scopes")
    def shown_scopes(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @admin.display(description="state")
    def shown_state(self, key: ApiKey) -> str:
        return cells.state("revoked" if key.revoked_at else "active")
