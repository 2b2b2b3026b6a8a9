"""The section of a tenant's page on how long its data is retained."""

from django.conf import settings

from easel.portal.pages import Section
from tenants.models import Tenant
from tenants.retention import retention_of


def retention_section(tenant: Tenant) -> Section:
    """The days that apply, and whether they are the platform's or the tenant's own."""
    holds = retention_of(tenant, default=settings.EASEL)
    rows = [
        (what, f"{days} days", "the platform's" if own is None else "its own")
        for what, days, own in (
            ("Images", holds.output_days, tenant.output_days),
            ("Texts of jobs", holds.job_days, tenant.job_days),
        )
    ]
    return Section("Retention", ("Data", "Retained for", "Rule"), rows, "")
