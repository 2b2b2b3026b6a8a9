"""Erases a tenant: what it made and wrote goes, what it was charged stays, without its words.

A request suspends the tenant and revokes its keys; then batches delete until nothing is left, and the last transaction
makes the row say so. Each batch leaves less to do: whoever calls `erase_advance` again, the scheduler or the command,
goes on where a crash left it.

    goes    images, adapters' files, prompts, metadata, users, error texts, comments, block list, idempotency keys,
            webhooks;
            the names of the tenant, its keys, adapters, experiments and arms
    stays   usage, charges, ledger, statements and who they are billed to; jobs as rows of numbers; the audit log; and
            what amounts are told apart by: the slug, projects with their labels, adapters' names on usage records
"""

from datetime import datetime

from django.db import transaction
from django.db.models import QuerySet

from billing.models import StoredObject
from billing.usage.storage import objects_deleted
from core.audit import audit_record
from core.errors import DomainError
from easel.catalog.adapters import adapters_erase
from easel.jobs import lifecycle
from easel.jobs.deletion import age_out
from easel.jobs.models import Job, Output
from easel.serving.experiments import experiments_erase
from easel.storage import store
from easel.webhooks.endpoints import webhooks_erase
from tenants.accounts import tenant_close, tenant_forget
from tenants.models import Tenant
from tenants.retention import KeptDays

CANCELS = 200  # at a time


class JobsUnfinished(DomainError):
    """A tenant with unfinished jobs is not erased: let them end, or have them canceled."""

    code, http_status = "jobs_unfinished", 409


@transaction.atomic
def erase_request(*, tenant: Tenant, cancel_jobs: bool, actor: str, now: datetime) -> Tenant:
    """Closes the account for good, to be erased from now on; a second time it changes nothing.

    Raises `JobsUnfinished` where there are such and they are not to be canceled: then nothing is changed.
    """
    # Waits for admissions on their way and keeps others out, so that no job is missed.
    tenant = Tenant.objects.select_for_update().get(pk=tenant.pk)
    if tenant.erase_requested_at is not None:
        return tenant
    if (unfinished := unfinished_jobs(tenant).count()) and not cancel_jobs:
        raise JobsUnfinished(f"{unfinished} jobs of {tenant.slug} are unfinished: let them end, or have them canceled")
    tenant_close(tenant=tenant, now=now)
    details = {"canceled_jobs": unfinished}
    audit_record(actor=actor, action="tenant.erase", subject=tenant.slug, tenant=tenant, details=details, now=now)
    return tenant


def erase_advance(*, tenant: Tenant, default: KeptDays, actor: str, now: datetime) -> int:
    """One batch of a requested erasure; returns how many jobs it touched.

    0 when it waits for workers to stop, and when all is done: then `erased_at` is set.
    """
    for job in unfinished_jobs(tenant).filter(cancel_requested_at=None).select_related("pool")[:CANCELS]:
        lifecycle.cancel(job=job, now=now)
    if touched := age_out(default=default, now=now, tenant=tenant, actor=actor):
        return touched
    if not unfinished_jobs(tenant).exists():
        adapters_erase(tenant=tenant, now=now)
        webhooks_erase(tenant=tenant)
        while store().clear(tenant.slug):  # also what crashes left, that no row names
            pass
        _finish(tenant, actor, now)
    return 0


@transaction.atomic
def _finish(tenant: Tenant, actor: str, now: datetime) -> None:
    """The names, and the record; the next call tries again where anything came in between."""
    tenant = Tenant.objects.select_for_update().get(pk=tenant.pk)
    left = tenant.jobs.filter(deleted_at=None).exists() or store().clear(tenant.slug)
    if tenant.erased_at is not None or left:
        return
    stored = StoredObject.objects.filter(project__tenant=tenant, deleted_at=None)
    objects_deleted(storage_keys=stored.values_list("storage_key", flat=True), now=now)
    experiments_erase(tenant=tenant, now=now)
    tenant_forget(tenant=tenant, now=now)
    details = {
        "jobs": tenant.jobs.count(),
        "images": Output.objects.filter(job__tenant=tenant).count(),
        "adapters": tenant.adapters.count(),
        "objects_left_in_storage": 0,  # seen above
    }
    audit_record(actor=actor, action="tenant.erased", subject=tenant.slug, tenant=tenant, details=details, now=now)


def unfinished_jobs(tenant: Tenant) -> QuerySet[Job]:
    """What an erasure waits for."""
    return Job.objects.filter(tenant=tenant, finished_at=None)
