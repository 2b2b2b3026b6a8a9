"""Deletes images: their files, and with them the charge for storing them; and files that are no job's images."""

from collections.abc import Collection
from datetime import date, datetime, timedelta
from itertools import islice
from uuid import UUID

from django.db import transaction

from billing.usage.storage import objects_deleted
from core.audit import audit_record
from easel.jobs.models import (
    Attempt,
    CachedResult,
    Job,
    Output,
)
from easel.jobs.storage_keys import attempt_keys, day_folder, job_of_key
from easel.jobs.transport import CAPABILITY_SECONDS
from easel.storage import store
from tenants.models import Tenant


@transaction.atomic
def outputs_delete(*, job: Job, actor: str, now: datetime) -> int:
    """Deletes the images of a job; returns how many there were. The job and its charges stay."""
    Job.objects.select_for_update(of=("self",)).get(pk=job.pk)
    images = images_delete([job.pk], now=now)
    if images:
        details = {"images": images}
        audit_record(
            actor=actor, action="images.delete", subject=str(job.pk), tenant=job.tenant, details=details, now=now
        )
    return images


@transaction.atomic
def images_delete(job_ids: Collection[UUID], *, now: datetime) -> int:
    """Deletes the images of jobs that the caller has locked; returns how many there were.

    The files go before the commit: a crash between the two leaves images to be deleted again, and never files that
    nobody knows of.
    """
    CachedResult.objects.filter(job__in=job_ids).delete()
    outputs = Output.objects.select_for_update().filter(job__in=job_ids, deleted_at=None)
    keys = dict(outputs.values_list("pk", "storage_key"))
    store().delete_all(keys.values())
    Output.objects.filter(pk__in=keys).update(deleted_at=now)
    objects_deleted(storage_keys=keys.values(), now=now)
    Job.objects.filter(pk__in=job_ids, images_deleted_at=None).exclude(finished_at=None).update(images_deleted_at=now)
    return len(keys)


def leftovers_delete(job_ids: Collection[UUID]) -> None:
    """Deletes what attempts stored and no sweep has looked at yet. A sweep will: their workers may still write."""
    unswept = Attempt.objects.filter(job__in=job_ids, swept_at=None).select_related("job__tenant")
    images = set(Output.objects.filter(job__in=job_ids, deleted_at=None).values_list("storage_key", flat=True))
    store().delete_all({key for attempt in unswept for key in attempt_keys(attempt.job, attempt.token)} - images)


def attempts_sweep(*, now: datetime) -> int:
    """Deletes what ended attempts stored and no image is: previews, and outputs of those that were lost or failed.

    Only once its signed URLs have expired, as a worker that was taken for dead may still write. Up to a thousand
    attempts; returns how many.
    """
    over = Attempt.objects.filter(swept_at=None, dispatched_at__lt=now - timedelta(seconds=CAPABILITY_SECONDS))
    ended = over.exclude(state=Attempt.State.LIVE).select_related("job__tenant").order_by("dispatched_at")[:1000]
    for attempt in ended:
        images = set(Output.objects.filter(job_id=attempt.job_id).values_list("storage_key", flat=True))
        store().delete_all(key for key in attempt_keys(attempt.job, attempt.token) if key not in images)
        attempt.swept_at = now
        attempt.save(update_fields=["swept_at"])
    return len(ended)


def orphans_sweep(*, day: date) -> int:
    """Deletes objects of the jobs of a day (UTC) that nothing names; returns how many.

    They are left by a crash: copies for an answer from the cache that was never committed, half an upload, an upload
    that began before its URL expired and ended after the sweep. The storage itself is read, a day at a time.
    """
    swept = 0
    for slug in Tenant.objects.values_list("slug", flat=True):
        found = store().keys(day_folder(slug, day))
        while keys := list(islice(found, 1000)):
            images = Output.objects.filter(storage_key__in=keys, deleted_at=None)
            unfinished = set(Job.objects.filter(id__in=set(map(job_of_key, keys)), finished_at=None).values_list("id"))
            kept = set(images.values_list("storage_key", flat=True))
            strays = [key for key in keys if key not in kept and (job_of_key(key),) not in unfinished]
            store().delete_all(strays)
            swept += len(strays)
    return swept
