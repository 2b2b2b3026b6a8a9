"""Deletes images: their files, and with them the charge for storing them; and files that are no job's images."""

from datetime import datetime, timedelta

from django.db import transaction

from billing.storage import objects_deleted
from easel.generation.keys import attempt_keys
from easel.generation.models import Attempt, Job, Output
from easel.generation.result_cache import result_forget
from easel.generation.transport import CAPABILITY_SECONDS
from easel.storage import store


@transaction.atomic
def outputs_delete(*, job: Job, now: datetime) -> int:
    """Deletes the images of a finished job; returns how many there were. The job and its charges stay.

    The files go before the commit: a crash between the two leaves images to be deleted again, and never files that
    nobody knows of.
    """
    result_forget(job)
    outputs = list(Output.objects.select_for_update().filter(job=job, deleted_at=None))
    for output in outputs:
        store().delete(output.storage_key)
    Output.objects.filter(pk__in=[output.pk for output in outputs]).update(deleted_at=now)
    objects_deleted(storage_keys=[output.storage_key for output in outputs], at=now)
    return len(outputs)


def outputs_delete_old(*, before: datetime, now: datetime) -> int:
    """Deletes the images of jobs that finished before an instant, up to a thousand jobs; returns how many images."""
    old = Job.objects.filter(finished_at__lt=before, outputs__deleted_at=None, outputs__isnull=False)
    return sum(outputs_delete(job=job, now=now) for job in old.order_by("finished_at").distinct()[:1000])


def attempts_sweep(*, now: datetime) -> int:
    """Deletes what ended attempts stored and no image is: previews, and outputs of those that were lost or failed.

    Only once its signed URLs have expired, as a worker that was taken for dead may still write. Up to a thousand
    attempts; returns how many.
    """
    over = Attempt.objects.filter(swept_at=None, dispatched_at__lt=now - timedelta(seconds=CAPABILITY_SECONDS))
    ended = over.exclude(state=Attempt.State.LIVE).select_related("job__tenant").order_by("dispatched_at")[:1000]
    for attempt in ended:
        images = set(Output.objects.filter(job_id=attempt.job_id).values_list("storage_key", flat=True))
        for key in attempt_keys(attempt.job, attempt.token):
            if key not in images:
                store().delete(key)
        attempt.swept_at = now
        attempt.save(update_fields=["swept_at"])
    return len(ended)
