"""Deletes the images and texts of finished jobs, on request or when their tenant's retention period is over.

A deleted job keeps its row, without its texts (prompt, metadata, user, error messages). Each deletion writes its audit
record in its own transaction.
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
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

# Jobs per transaction and per call to the store, which takes a thousand keys: few enough to hold their locks briefly.
BATCH_JOBS = 200


@dataclass(frozen=True, slots=True)
class Deleted:
    """Numbers of the jobs and images that a call deleted."""

    jobs: int
    images: int


@transaction.atomic
def job_delete(*, job: Job, actor: str, now: datetime) -> Deleted:
    """Delete a finished job's images and texts. Idempotent. Raises `JobUnfinished`."""
    job = Job.objects.select_for_update(of=("self",)).select_related("tenant").get(pk=job.pk)
    if job.finished_at is None:
        raise JobUnfinished(f"the job is {job.state}: cancel it first (POST /v1/jobs/{job.id}/cancel)")
    deleted = _texts_delete(job.tenant, [job.pk], now)
    if deleted.jobs:
        details = {"images": deleted.images}
        audit_record(actor=actor, action="job.delete", subject=str(job.id), tenant=job.tenant, details=details, now=now)
    return deleted


def age_out(*, default: RetentionDefault, now: datetime, tenant: Tenant | None = None, actor: str = "platform") -> int:
    """Delete a batch of what is past its retention period, images before texts; return the number of jobs changed.

    It covers all tenants, or one. A tenant that is to be erased retains nothing. Several calls at a time share the
    work, and an interrupted one is continued by the next.
    """
    changed = 0
    for mark, action in (("images_deleted_at", "images.age_out"), ("deleted_at", "jobs.age_out")):
        for owner, job_ids in _due(mark, default, now, tenant):
            with transaction.atomic():
                locked = _locked(job_ids, mark)
                if mark == "deleted_at":
                    deleted = _texts_delete(owner, locked, now)
                else:
                    deleted = Deleted(jobs=len(locked), images=images_delete(locked, now=now))
                if deleted.images or (deleted.jobs and mark == "deleted_at"):
                    details = asdict(deleted)
                    audit_record(actor=actor, action=action, subject=owner.slug, tenant=owner, details=details, now=now)
            changed += deleted.jobs
    return changed


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
    """Return a batch of jobs by tenant, each tenant's found by a partial index: no tenant slows down the others."""
    parameters: dict[str, Any] = {
        "midnight": now.replace(hour=0, minute=0, second=0, microsecond=0),
        "batch": BATCH_JOBS,
        "tenant": tenant and tenant.pk,
        "output_days": default.output_days,
        "job_days": default.job_days,
    }
    found: dict[UUID, list[UUID]] = defaultdict(list)
    with connection.cursor() as cursor:
        cursor.execute(_DUE.format(mark=mark, days=_DAYS[mark]), parameters)
        for tenant_id, job_id in cursor:
            found[tenant_id].append(job_id)
    owners = Tenant.objects.in_bulk(found)
    return [(owners[tenant_id], job_ids) for tenant_id, job_ids in found.items()]


def _locked(job_ids: Collection[UUID], mark: str) -> list[UUID]:
    """Lock those unmarked jobs that no other transaction has locked, in order of id, and return their ids."""
    jobs = Job.objects.filter(pk__in=job_ids, **{mark: None}).order_by("id")
    return list(jobs.select_for_update(of=("self",), skip_locked=True).values_list("id", flat=True))


def _texts_delete(owner: Tenant, job_ids: Collection[UUID], now: datetime) -> Deleted:
    """Delete the images and texts of locked jobs. Their rows stay: usage records and the ledger refer to their ids."""
    images = images_delete(job_ids, now=now)
    attempt_files_delete(job_ids)
    Feedback.objects.filter(job__in=job_ids).update(comment="")
    Attempt.objects.filter(job__in=job_ids).exclude(error_message="").update(error_message="")
    jobs = Job.objects.filter(pk__in=job_ids, deleted_at=None).update(
        prompt="",
        metadata={},
        warnings=[],  # they name fields as the client spelled them
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
