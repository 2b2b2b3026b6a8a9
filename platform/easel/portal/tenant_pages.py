"""Tenants and their keys."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db.models import BigIntegerField, Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.utils import timezone

from billing.models import Entry, LedgerAccount
from core import clock
from easel.actions import credit, keys, limits, prices, serving, statements, tenants
from easel.jobs.models import Job
from easel.portal import cells
from easel.portal.credit_pages import contracts_section, credit_sections
from easel.portal.limit_pages import quotas_section, retention_section
from easel.portal.pages import Page, Section, column, register
from tenants.models import ApiKey, Tenant

MOVEMENTS = 20


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


@register(Tenant)
class TenantPage(Page):
    empty = "Tenants appear here. An operator creates one here, or by easel tenant create."
    list_display = ("slug", "name", "shown_state", "credit", "held", "owed", "jobs_today", "created_at")
    list_filter = (StateFilter,)
    search_fields = ("slug", "name")
    ordering = ("slug",)
    fields = (
        "slug", "name", "shown_state", "currency", "fair_share_weight", "listed_models", "moderation", "created_at",
        "suspended_at", "erase_requested_at", "erased_at", "shown_origins", "image_url_minutes",
    )  # fmt: skip
    list_actions = (tenants.create,)
    row_actions = (
        *credit.ACTIONS, limits.set_limits, limits.set_share, prices.make_contract, prices.end_contract,
        statements.draft, limits.set_retention, limits.set_origins, keys.add_key, tenants.add_project,
        serving.dedicate_pool, tenants.set_listed_models, tenants.set_image_urls,
        limits.set_moderation, tenants.suspend, tenants.resume,
        tenants.erase,
    )  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[Tenant]:
        midnight = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
        today = Job.objects.filter(
            tenant=OuterRef("pk"), created_at__gte=midnight, created_at__lt=midnight + timedelta(1)
        )
        counted = today.order_by().values("tenant").annotate(count=Count("*")).values("count")
        rows: QuerySet[Tenant] = super().get_queryset(request)
        return rows.annotate(
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

    shown_origins = column("web origins", lambda tenant: ", ".join(tenant.origins) or cells.NOTHING)
    credit = column(
        "Credit", lambda tenant: cells.money(tenant.credit_micros, tenant.currency), ordering="credit_micros"
    )
    held = column("held for running jobs", lambda tenant: cells.money(tenant.held_micros, tenant.currency))
    owed = column(
        "owed",
        lambda tenant: (
            cells.money(-tenant.receivable_micros, tenant.currency) if tenant.receivable_micros else cells.NOTHING
        ),
    )
    jobs_today = column("jobs today", lambda tenant: cells.number(tenant.jobs_of_today), ordering="jobs_of_today")

    def sections(self, row: Tenant) -> Iterable[Section]:
        accounts = row.accounts.order_by("kind", "meter")
        yield Section.of(
            "Balances",
            accounts,
            {
                "Account": lambda account: cells.link(account, f"{account.kind} {account.meter}".strip()),
                "Balance": lambda account: cells.money(account.balance_micros, account.currency),
                "Meaning": lambda account: account.get_kind_display(),
            },
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
        yield _keys_section(row)
        yield _movements_section(row)
        yield _jobs_section(row)


def _keys_section(tenant: Tenant) -> Section:
    return Section.of(
        "API keys",
        tenant.api_keys.select_related("project").order_by("-created_at")[:MOVEMENTS],
        {
            "Key": lambda key: cells.link(key),
            "Name": lambda key: key.name or cells.NOTHING,
            "Project": lambda key: key.project.slug,
            "Scopes": lambda key: ", ".join(key.scopes),
            "State": lambda key: cells.state(_key_state(key)),
            "Since": lambda key: cells.when(key.created_at),
        },
        "No key: make one, for the tenant to call with.",
    )


def _key_state(key: ApiKey) -> str:
    if key.revoked_at:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= clock.now() else "active"


def _movements_section(tenant: Tenant) -> Section:
    entries = Entry.objects.filter(account__tenant=tenant, account__kind=LedgerAccount.Kind.CREDIT)
    return Section.of(
        f"Latest movements of credit (up to {MOVEMENTS})",
        entries.select_related("transaction").order_by("-transaction__created_at", "-id")[:MOVEMENTS],
        {
            "At": lambda entry: cells.when(entry.transaction.created_at),
            "Kind": lambda entry: entry.transaction.kind,
            "Credit": lambda entry: cells.money(entry.amount_micros, entry.transaction.currency),
            "Description": lambda entry: entry.transaction.description or cells.NOTHING,
            "Transaction": lambda entry: cells.link(entry.transaction),
        },
        "Credit has not moved yet.",
    )


def _jobs_section(tenant: Tenant) -> Section:
    return Section(
        "Latest jobs",
        ("Job", "State", "Prompt", "Created"),
        [
            (cells.link(job), cells.state(job.state), job.prompt[:80], cells.when(job.created_at))
            for job in tenant.jobs.order_by("-created_at", "-id")[:10]
        ],
        "No job yet.",
    )


@register(ApiKey)
class ApiKeyPage(Page):
    empty = "API keys appear here. An operator makes one on the page of its tenant, or by easel key create."
    list_display = ("key_id", "tenant", "project_slug", "name", "shown_scopes", "shown_state", "created_at")
    list_filter = (("revoked_at", admin.EmptyFieldListFilter),)
    search_fields = ("key_id", "tenant__slug")
    list_select_related = ("tenant", "project")
    fields = (
        "key_id",
        "tenant",
        "project_slug",
        "name",
        "shown_scopes",
        "is_lenient",
        "expires_at",
        "shown_addresses",
        "shown_state",
        "created_at",
        "revoked_at",
    )
    row_actions = (
        *(limits.set_limits, credit.set_budget),
        *(keys.set_access, keys.set_leniency, keys.rotate, keys.revoke),
    )

    project_slug = column("project", lambda key: key.project.slug)
    shown_scopes = column("scopes", lambda key: ", ".join(key.scopes))
    shown_addresses = column("addresses", lambda key: ", ".join(key.addresses) or "everywhere")
    shown_state = column("state", lambda key: cells.state(_key_state(key)))
