"""How long what a tenant made and wrote is kept, and its erasure."""

from django import forms
from django.conf import settings

from easel.portal.pages import Act, ActForm, Done, Operator, Section
from easel.privacy.erasure import erase_request
from tenants.models import RETENTION_DAYS_MAX, Tenant
from tenants.retention import retention_of, retention_set


class RetentionForm(ActForm):
    """Begins with the days as they are; one left empty is the platform's."""

    output_days = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=RETENTION_DAYS_MAX,
        label="Days of images",
        help_text="Empty: the platform's.",
    )
    job_days = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=RETENTION_DAYS_MAX,
        label="Days of jobs",
        help_text="Prompts, users, errors.",
    )

    def prepare(self) -> None:
        for field in ("output_days", "job_days"):
            self.fields[field].initial = getattr(self.row, field)


def _set_retention(tenant: Tenant, operator: Operator, **days: int | None) -> Done:
    holds = retention_set(tenant=tenant, changes=days, default=settings.EASEL)
    operator.record("retention.set", tenant.slug, tenant=tenant, details=days)
    return Done(f"Images of {tenant.slug} are kept for {holds.output_days} days, its jobs for {holds.job_days}.")


SET_RETENTION = Act(
    name="retention",
    label="Set retention",
    permission="tenants.change_tenant",
    perform=_set_retention,
    form=RetentionForm,
    explain="What is older is deleted within seconds, for good. What jobs did and cost stays.",
)


class EraseForm(ActForm):
    slug = forms.CharField(max_length=40, help_text="The tenant's name, typed again.")
    cancel_jobs = forms.BooleanField(required=False, help_text="Cancel its unfinished jobs.")

    def clean_slug(self) -> str:
        if self.cleaned_data["slug"] != self.row.slug:
            raise forms.ValidationError("This is not the tenant's name.")
        return str(self.row.slug)


def _erase(tenant: Tenant, operator: Operator, *, slug: str, cancel_jobs: bool) -> Done:
    erase_request(tenant=tenant, cancel_jobs=cancel_jobs, actor=operator.actor, now=operator.now)
    return Done(f"{slug} is closed and being erased: its page says when that is done.")


ERASE = Act(
    name="erase",
    label="Erase",
    permission="tenants.delete_tenant",
    perform=_erase,
    form=EraseForm,
    applies=lambda tenant: tenant.erase_requested_at is None,
    explain="Deletes images, adapters, prompts, users and names for good and revokes its keys. What it cost stays.",
    danger=True,
)


def retention_section(tenant: Tenant) -> Section:
    """What holds, and whose rule it is."""
    holds = retention_of(tenant, default=settings.EASEL)
    rows = [
        (what, f"{days} days", "the platform's" if own is None else "its own")
        for what, days, own in (
            ("Images", holds.output_days, tenant.output_days),
            ("What jobs say", holds.job_days, tenant.job_days),
        )
    ]
    return Section("Retention", ("What", "Kept for", "Whose rule"), rows, "")
