"""What tenants and keys may ask for: their quotas, and the block lists."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Q

from easel.portal import cells
from easel.portal.pages import Act, ActForm, Done, Operator, Page, Section
from easel.portal.site import portal
from tenants.block_lists import block_list_add, block_list_remove
from tenants.models import ApiKey, BlockListEntry, Quota, Tenant
from tenants.quotas import HIGHEST, INTEGER_MAX, LIMITS, quota_set


class QuotaForm(ActForm):
    """Begins with the limits as they are; one left empty is none."""

    requests_per_minute = forms.IntegerField(required=False, min_value=0, max_value=INTEGER_MAX)
    concurrent_jobs_max = forms.IntegerField(required=False, min_value=0, max_value=INTEGER_MAX, label="Jobs at once")
    queued_jobs_max = forms.IntegerField(
        required=False,
        min_value=0,
        max_value=INTEGER_MAX,
        label="Waiting jobs",
        help_text="Empty for an account: as the platform has it (EASEL_QUEUED_JOBS_MAX).",
    )
    image_units_per_month = forms.DecimalField(
        required=False,
        min_value=0,
        max_value=HIGHEST["image_units_per_month"],
        decimal_places=4,
        help_text="512x512 pixels are one.",
    )
    pixels_max = forms.IntegerField(
        required=False, min_value=0, max_value=INTEGER_MAX, help_text="Largest width x height of an image."
    )
    steps_max = forms.IntegerField(required=False, min_value=0, max_value=HIGHEST["steps_max"])

    def prepare(self) -> None:
        quota = _quota_of(self.row)
        for limit in LIMITS:
            self.fields[limit].initial = getattr(quota, limit, None)


class BlockForm(ActForm):
    kind = forms.ChoiceField(choices=BlockListEntry.Kind.choices)
    pattern = forms.CharField(max_length=500, help_text="A phrase is found however it is written; a pattern is RE2's.")
    tenant = forms.SlugField(required=False, help_text="For this tenant alone; empty: for all.")
    reason = forms.CharField(max_length=200, required=False)

    def clean_tenant(self) -> Tenant | None:
        slug = self.cleaned_data["tenant"]
        found = Tenant.objects.filter(slug=slug).first()
        if slug and found is None:
            raise forms.ValidationError("There is no such tenant.")
        return found


def _quota_of(row: Tenant | ApiKey) -> Quota | None:
    if isinstance(row, Tenant):
        return row.quotas.filter(api_key=None).first()
    return Quota.objects.filter(api_key=row).first()


def _set_limits(row: Tenant | ApiKey, operator: Operator, **limits: Any) -> Done:
    tenant, key = (row, None) if isinstance(row, Tenant) else (row.tenant, row)
    quota_set(tenant=tenant, api_key=key, limits=limits, now=operator.now)
    said = {limit: None if value is None else str(value) for limit, value in limits.items()}
    subject = tenant.slug if key is None else key.key_id
    operator.record("quota.set", subject, tenant=tenant, details=said)
    return Done(f"The limits of {subject} hold from its next request.")


def _block(_row: None, operator: Operator, *, kind: str, pattern: str, tenant: Tenant | None, reason: str) -> Done:
    entry = block_list_add(
        tenant=tenant, kind=BlockListEntry.Kind(kind), pattern=pattern, reason=reason, now=operator.now
    )
    operator.record("block_list.add", str(entry.pk), tenant=tenant, details={"kind": kind, "pattern": pattern})
    return Done("No prompt may hold it from now on.", show=entry)


def _unblock(entry: BlockListEntry, operator: Operator) -> Done:
    pattern = entry.pattern
    if block_list_remove(entry_id=entry.pk):
        operator.record("block_list.remove", str(entry.pk), tenant=entry.tenant, details={"pattern": pattern})
    return Done("The entry is removed.", gone=True)


SET_LIMITS = Act(
    name="limits",
    label="Set limits",
    permission="tenants.change_quota",
    perform=_set_limits,
    form=QuotaForm,
    explain="Hold from the next request. Empty: none; 0: nothing. Of account and key, the tightest wins.",
)


def quotas_section(tenant: Tenant) -> Section:
    """The tenant's limits and those of its keys."""
    quotas = (
        tenant.quotas.filter(Q(api_key=None) | Q(api_key__revoked_at=None)).select_related("api_key").order_by("id")
    )
    return Section(
        "Limits",
        ("Of", "Requests a minute", "Jobs at once", "Image units a month", "Largest image (pixels)", "Steps"),
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
    list_display = ("pattern", "kind", "whose", "reason", "created_at")
    list_filter = ("kind", ("tenant", admin.EmptyFieldListFilter))
    search_fields = ("pattern", "tenant__slug")
    list_select_related = ("tenant",)
    ordering = ("-created_at", "-id")
    fields = ("pattern", "kind", "whose", "reason", "created_at")
    readonly_fields = ("whose",)
    list_acts = (
        Act(name="add", label="New entry", permission="tenants.add_blocklistentry", perform=_block, form=BlockForm),
    )
    acts = (
        Act(
            name="remove",
            label="Remove",
            permission="tenants.delete_blocklistentry",
            perform=_unblock,
            explain="Prompts may hold it again.",
            danger=True,
        ),
    )

    @admin.display(description="holds for")
    def whose(self, entry: BlockListEntry) -> str:
        return entry.tenant.slug if entry.tenant else "everybody"
