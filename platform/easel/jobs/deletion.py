"""Deletes what tenants made and wrote: when they ask for it, and when its days are over.

A job's row stays, without its words: what it took, what it cost and how it ended are what a statement is explained
by, and what audits, reports and experiments count. Every deletion leaves its record in the audit log, in the
transaction that deletes.
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from django.db import connection, transaction
from django.db.models import Case, CharField, F, Value, When
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce

from core.audit import audit_record
from easel.jobs.errors import JobUnfinished
from easel.jobs.models import Attempt, Feedback, Job
from easel.jobs.outputs import attempt_files_delete, images_delete
from easel.serving.experiment_report import CALLER
from tenants.models import Tenant
from tenants.retention import RetentionDefault

# Jobs of one transaction and of one call to the store, which takes a thousand keys: locks are held for a moment.
BATCH_JOBS = 200


@dataclass(frozen=True, slots=True)
class Deleted:
    jobs: int
    images: int


@transaction.atomic
def job_delete(*, job: Job, actor: str, now: datetime) -> Deleted:
    """Deletes a finished job's images and words at once; a second time it does nothing. Raises `JobUnfinished`."""
    # Waits for whoever ends or deletes it.
    job = Job.objects.select_for_update(of=("self",)).select_related("tenant").get(pk=job.pk)
    if job.finished_at is None:
        raise JobUnfinished(f"the job is {job.state}: cancel it first (POST /v1/jobs/{job.id}/cancel)")
    deleted = _words_delete(job.tenant, [job.pk], now)
    if deleted.jobs:
        audit_record(
            actor=actor,
            action="job.delete",
            subject=str(job.id),
            tenant=job.tenant,
            details={"images": deleted.images},
            now=now,
        )
    return deleted


def age_out(*, default: RetentionDefault, now: datetime, tenant: Tenant | None = None, actor: str = "platform") -> int:
    """Deletes a batch of what is kept too long, images before words; returns how many jobs that touched.

    Of all tenants, or of one; one that is to be erased keeps nothing. Broken off, it goes on at the next call, and
    two at once share the work.
    """
    touched = 0
    for owner, job_ids in _due("images_deleted_at", default, now, tenant):
        with transaction.atomic():
            locked = _locked(job_ids, images_deleted_at=None)
            images = images_delete(locked, now=now)
            if images:
                details = {"jobs": len(locked), "images": images}
                audit_record(
                    actor=actor, action="images.age_out", subject=owner.slug, tenant=owner, details=details, now=now
                )
        touched += len(locked)
    for owner, job_ids in _due("deleted_at", default, now, tenant):
        with transaction.atomic():
            deleted = _words_delete(owner, _locked(job_ids, deleted_at=None), now)
            if deleted.jobs:
                details = {"jobs": deleted.jobs, "images": deleted.images}
                audit_record(
                    actor=actor, action="jobs.age_out", subject=owner.slug, tenant=owner, details=details, now=now
                )
        touched += deleted.jobs
    return touched


_DUE = """
    SELECT tenant.id, due.id
      FROM tenants_tenant AS tenant
     CROSS JOIN LATERAL (
            SELECT job.id FROM jobs_job AS job
             WHERE job.tenant_id = tenant.id AND job.finished_at IS NOT NULL AND job.{mark} IS NULL
               AND job.finished_at < CASE WHEN tenant.erase_requested_at IS NULL
                                          THEN %(midnight)s - make_interval(days => {days}) ELSE 'infinity' END
             ORDER BY job.finished_at LIMIT %(batch)s
           ) AS due
     WHERE tenant.id = %(tenant)s OR %(tenant)s IS NULL
     LIMIT %(batch)s
"""
_JOB_DAYS = "coalesce(tenant.job_days, %(job_days)s)"
_DAYS = {
    "images_deleted_at": f"least(coalesce(tenant.output_days, %(output_days)s), {_JOB_DAYS})",
    "deleted_at": _JOB_DAYS,
}


def _due(mark: str, default: RetentionDefault, now: datetime, tenant: Tenant | None) -> list[tuple[Tenant, list[UUID]]]:
    """A batch of jobs by tenant; each tenant's are found by its partial index, whatever the others keep."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    found: dict[UUID, list[UUID]] = defaultdict(list)
    with connection.cursor() as cursor:
        cursor.execute(
            _DUE.format(mark=mark, days=_DAYS[mark]),
            {
                "midnight": midnight,
                "batch": BATCH_JOBS,
                "tenant": tenant.pk if tenant else None,
                "output_days": default.output_days,
                "job_days": default.job_days,
            },
        )
        for tenant_id, job_id in cursor:
            found[tenant_id].append(job_id)
    owners = Tenant.objects.in_bulk(found)
    return [(owners[tenant_id], job_ids) for tenant_id, job_ids in found.items()]


def _locked(job_ids: Collection[UUID], **still: None) -> list[UUID]:
    """Those that nobody else has in hand, in order of id, as every writer of several jobs locks them."""
    jobs = Job.objects.filter(pk__in=job_ids, **still).order_by("id")
    return list(jobs.select_for_update(of=("self",), skip_locked=True).values_list("id", flat=True))


def _words_delete(owner: Tenant, job_ids: Collection[UUID], now: datetime) -> Deleted:
    """Of locked jobs; what is left of them is a row of numbers, and an id that usage and ledger refer to."""
    images = images_delete(job_ids, now=now)
    attempt_files_delete(job_ids)
    Feedback.objects.filter(job__in=job_ids).update(comment="")
    Attempt.objects.filter(job__in=job_ids).exclude(error_message="").update(error_message="")
    jobs = Job.objects.filter(pk__in=job_ids, deleted_at=None).update(
        prompt="",
        metadata={},
        user=Case(
            When(arm=None, then=Value("")),
            When(user="", then=Value("")),
            default=RawSQL(CALLER.format(salt="%s"), [str(owner.caller_salt or uuid4())]),  # noqa: S611 - of a constant
            output_field=CharField(),
        ),
        request_id="",
        result_key="",
        error_message="",
        images_deleted_at=Coalesce(F("images_deleted_at"), Value(now)),
        deleted_at=now,
    )
    return Deleted(jobs=jobs, images=images)
