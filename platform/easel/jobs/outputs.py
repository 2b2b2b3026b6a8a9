"""Records the stored images of jobs, deletes them, and sweeps files that are no job's image."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import islice
from uuid import UUID

from django.db import transaction

from billing.models import StoredObject
from billing.usage.storage import objects_deleted, objects_stored
from core.audit import audit_record
from easel.jobs.models import Attempt, CachedResult, Job, Output
from easel.jobs.storage_keys import attempt_keys, day_folder, job_of_key
from easel.jobs.transport import SIGNED_URL_SECONDS
from easel.storage import store
from inference.contract import StoredOutput
from tenants.models import IMAGE_URL_MINUTES, ApiKey, Tenant, image_url_minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLinks:
    """Signs URLs of images, valid for `seconds`; they begin with `base` if images are in a folder.

    Those of the folder end with the access of the API key `key_id`, for which they are made. Those of a bucket lead to
    the bucket, which knows of no key: time alone ends them.
    """

    seconds: int
    base: str
    key_id: str = ""

    def url(self, storage_key: str) -> str:
        return store().signed_url("GET", storage_key, seconds=self.seconds, base=self.base, key_id=self.key_id)


def links_for(key: ApiKey, *, base: str, now: datetime) -> ImageLinks:
    """Return the links that a caller is given: for as long as its tenant's policy says, and no longer than its key."""
    seconds = 60 * image_url_minutes(key.tenant)
    if key.expires_at is not None:
        seconds = min(seconds, max(1, int((key.expires_at - now).total_seconds())))
    return ImageLinks(seconds=seconds, base=base, key_id=key.key_id)


# For an operator's page: nobody's key, so that the images of a suspended tenant can be looked at.
PORTAL_LINKS = ImageLinks(seconds=60 * IMAGE_URL_MINUTES, base="")


def output_of(job: Job, image: Output | StoredOutput, storage_key: str) -> Output:
    """Return an output of `job`, not saved, with the facts of a reported or copied image."""
    facts = {name: getattr(image, name) for name in ("index", "seed", "sha256", "size_bytes")}
    return Output(job=job, storage_key=storage_key, **facts)


def outputs_record(job: Job, outputs: Sequence[Output], *, now: datetime) -> None:
    """Write the stored images of a job, which are billed for storage from now on; in the caller's transaction."""
    Output.objects.bulk_create(outputs)
    sizes = {output.storage_key: output.size_bytes for output in outputs}
    objects_stored(project=job.project, kind=StoredObject.Kind.OUTPUT, sizes=sizes, now=now)


@transaction.atomic
def outputs_delete(*, job: Job, actor: str, now: datetime) -> int:
    """Delete the images of a job and return their number. The job and its charges stay."""
    Job.objects.select_for_update(of=("self",)).get(pk=job.pk)
    images = images_delete([job.pk], now=now)
    if images:
        event = {"actor": actor, "action": "images.delete", "subject": str(job.pk)}
        audit_record(**event, tenant=job.tenant, details={"images": images}, now=now)
    return images


@transaction.atomic
def images_delete(job_ids: Collection[UUID], *, now: datetime) -> int:
    """Delete the images of jobs whose rows the caller has locked; return their number.

    The files are deleted before the commit: after a crash in between, the images are deleted again. In the other order,
    a crash would leave files that nothing names.
    """
    CachedResult.objects.filter(job__in=job_ids).delete()
    outputs = Output.objects.select_for_update().filter(job__in=job_ids, deleted_at=None)
    keys = dict(outputs.values_list("pk", "storage_key"))
    store().delete_all(keys.values())
    Output.objects.filter(pk__in=keys).update(deleted_at=now)
    objects_deleted(storage_keys=keys.values(), now=now)
    Job.objects.filter(pk__in=job_ids, images_deleted_at=None).exclude(finished_at=None).update(images_deleted_at=now)
    return len(keys)


def attempt_files_delete(job_ids: Collection[UUID]) -> None:
    """Delete at once what the attempts of jobs stored beside the images.

    `attempts_sweep` deletes it again later, because a worker may write until its signed URLs expire.
    """
    unswept = Attempt.objects.filter(job__in=job_ids, swept_at=None).select_related("job__tenant")
    images = set(Output.objects.filter(job__in=job_ids, deleted_at=None).values_list("storage_key", flat=True))
    store().delete_all({key for attempt in unswept for key in attempt_keys(attempt.job, attempt.token)} - images)


def attempts_sweep(*, now: datetime) -> int:
    """Delete what ended attempts stored that is no job's image; return the number of attempts, at most a thousand.

    Such files are previews, and the outputs of attempts that were lost or failed. An attempt is swept once its signed
    URLs have expired, because a worker whose lease was lost may still write.
    """
    expired = Attempt.objects.filter(swept_at=None, dispatched_at__lt=now - timedelta(seconds=SIGNED_URL_SECONDS))
    ended = expired.exclude(state=Attempt.State.LIVE).select_related("job__tenant").order_by("dispatched_at")[:1000]
    for attempt in ended:
        images = set(Output.objects.filter(job_id=attempt.job_id).values_list("storage_key", flat=True))
        store().delete_all(key for key in attempt_keys(attempt.job, attempt.token) if key not in images)
        attempt.swept_at = now
        attempt.save(update_fields=["swept_at"])
    return len(ended)


def orphans_sweep(*, day: date) -> int:
    """Delete the objects of a day's jobs (UTC) that no output names and no unfinished job needs; return their number.

    A crash leaves such objects: copies for a cached answer that was never committed, half an upload, or an upload that
    began before its URL expired and ended after the sweep. The sweep lists the store itself, one day at a time.
    """
    swept = 0
    for slug in Tenant.objects.values_list("slug", flat=True):
        found = store().keys(day_folder(slug, day))
        while keys := list(islice(found, 1000)):
            outputs = Output.objects.filter(storage_key__in=keys, deleted_at=None)
            images = set(outputs.values_list("storage_key", flat=True))
            unfinished = set(Job.objects.filter(id__in=set(map(job_of_key, keys)), finished_at=None).values_list("id"))
            orphans = [key for key in keys if key not in images and (job_of_key(key),) not in unfinished]
            store().delete_all(orphans)
            swept += len(orphans)
    return swept
