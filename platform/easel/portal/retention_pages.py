"""How long what a tenant made and wrote is kept."""

from django import forms
from django.conf import settings

from easel.portal.pages import Act, ActForm, Done, Operator, Section
from tenants.models import KEPT_DAYS_MAX, Tenant
from tenants.retention import retention_of, retention_set


class RetentionForm(ActForm):
    """Begins with the days as they are; one left empty is the platform's."""

    output_days = forms.IntegerField(
        required=False, min_value=1, max_value=KEPT_DAYS_MAX, label="Days of images", help_text="Empty: the platform's."
    )
    job_days = forms.IntegerField(
        required=False, min_value=1, max_value=KEPT_DAYS_MAX, label="Days of jobs", help_text="Prompts, users, errors."
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
