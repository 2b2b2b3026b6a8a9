"""Sets budgets so that they count what unfinished jobs hold: `billing` knows holds, and not which jobs they are of."""

from datetime import datetime
from uuid import UUID

from billing.budgets import budgets
from billing.models import Budget
from easel.jobs.models import Job
from tenants.keys import family_keys
from tenants.models import ApiKey, Project, Tenant


def budget_set(
    *,
    tenant: Tenant,
    project: Project | None = None,
    api_key: ApiKey | None = None,
    amount_micros: int,
    hard_stop: bool,
    now: datetime,
) -> Budget:
    """Set the budget of a tenant, project or key. A new one counts the holds of its owner's unfinished jobs."""

    def unfinished() -> list[UUID]:
        return jobs_unfinished(tenant=tenant, project=project, api_key=api_key)

    return budgets.budget_set(
        tenant=tenant,
        project=project,
        api_key=api_key,
        amount_micros=amount_micros,
        hard_stop=hard_stop,
        unfinished=unfinished,
        now=now,
    )


def jobs_unfinished(*, tenant: Tenant, project: Project | None, api_key: ApiKey | None) -> list[UUID]:
    """Return the unfinished jobs of a tenant, or of its project, or of the family of its key."""
    jobs = Job.objects.filter(tenant=tenant, finished_at=None)
    if project is not None:
        jobs = jobs.filter(project=project)
    if api_key is not None:
        jobs = jobs.filter(api_key__in=family_keys(api_key.family_id))
    return list(jobs.values_list("id", flat=True))
