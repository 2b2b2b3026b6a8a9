"""Erases a tenant: deletes its content and personal data, and leaves the books.

An erasure is a request that the scheduler or the command works off in batches, whichever runs. The request suspends
the tenant and revokes its keys, `erase_advance` deletes one batch, and the last transaction sets `erased_at`. After a
crash the next call continues where the last batch ended. README.md lists what is deleted and what stays.
"""

from datetime import datetime

from django.db import transaction
from django.db.models import QuerySet

from billing.models import StoredObject
from billing.usage.storage import objects_deleted
from core.audit import audit_record
from core.errors import DomainError
from easel.batches.erasure import batches_erase, batches_stop, lines_waiting
from easel.catalog.adapters import adapters_erase
from easel.jobs import lifecycle
from easel.jobs.deletion import age_out
from easel.jobs.models import Job, Output
from easel.serving.aliases import aliases_erase
from easel.serving.experiments import experiments_erase
from easel.storage import store
from easel.webhooks.endpoints import webhooks_erase
from tenants.accounts import tenant_close, tenant_forget
from tenants.models import Tenant
from tenants.retention import RetentionDefault

CANCELS_MAX = 200  # jobs canceled by one call


class JobsUnfinished(DomainError, code="jobs_unfinished", http_status=409):
    """The tenant has unfinished jobs or batches: wait until they end, or cancel them with the request.

    Wait until the jobs have ended, or cancel them with the request.
    """


@transaction.atomic
def erase_request(*, tenant: Tenant, cancel_jobs: bool, actor: str, now: datetime) -> Tenant:
    """Close the tenant for good, so that its erasure begins; idempotent.

    Raises `JobsUnfinished` and changes nothing if there are unfinished jobs and `cancel_jobs` is false.
    """
    # The lock waits for admissions in progress and blocks new ones, so that no job is missed.
    tenant = Tenant.objects.select_for_update().get(pk=tenant.pk)
    if tenant.erase_requested_at is not None:
        return tenant
    unfinished = unfinished_jobs(tenant).count() + lines_waiting(tenant).count()
    if unfinished and not cancel_jobs:
        raise JobsUnfinished(f"{unfinished} jobs of {tenant.slug} are unfinished: wait until they end, or cancel them")
    tenant_close(tenant=tenant, now=now)
    details = {"canceled_jobs": unfinished}
    audit_record(actor=actor, action="tenant.erase", subject=tenant.slug, tenant=tenant, details=details, now=now)
    return tenant


def erase_advance(*, tenant: Tenant, default: RetentionDefault, actor: str, now: datetime) -> int:
    """Works off one batch of a requested erasure; returns the number of jobs it deleted from.

    Returns 0 while it waits for workers to stop, and once everything is done: then `erased_at` is set.
    """
    batches_stop(tenant=tenant, now=now)  # before their jobs, so that no line becomes another
    for job in unfinished_jobs(tenant).filter(cancel_requested_at=None).select_related("pool")[:CANCELS_MAX]:
        lifecycle.cancel(job=job, now=now)
    if touched := age_out(default=default, now=now, tenant=tenant, actor=actor):
        return touched
    if not unfinished_jobs(tenant).exists():
        adapters_erase(tenant=tenant, now=now)
        webhooks_erase(tenant=tenant)
        batches_erase(tenant=tenant)
        while store().clear(tenant.slug):  # also finds files that a crash left without a row
            pass
        _finish(tenant, actor, now)
    return 0


@transaction.atomic
def _finish(tenant: Tenant, actor: str, now: datetime) -> None:
    """Erases the names and sets `erased_at`, unless new data has come in: then the next call tries again."""
    tenant = Tenant.objects.select_for_update().get(pk=tenant.pk)
    remains = tenant.jobs.filter(deleted_at=None).exists() or store().clear(tenant.slug)
    if tenant.erased_at is not None or remains:
        return
    stored = StoredObject.objects.filter(project__tenant=tenant, deleted_at=None)
    objects_deleted(storage_keys=stored.values_list("storage_key", flat=True), now=now)
    experiments_erase(tenant=tenant, now=now)
    aliases_erase(tenant=tenant)
    tenant_forget(tenant=tenant, now=now)
    details = {
        "jobs": tenant.jobs.count(),
        "images": Output.objects.filter(job__tenant=tenant).count(),
        "adapters": tenant.adapters.count(),
        "objects_left_in_storage": 0,  # `store().clear` found none
    }
    audit_record(actor=actor, action="tenant.erased", subject=tenant.slug, tenant=tenant, details=details, now=now)


def unfinished_jobs(tenant: Tenant) -> QuerySet[Job]:
    """Return the jobs that an erasure waits for."""
    return Job.objects.filter(tenant=tenant, finished_at=None)
