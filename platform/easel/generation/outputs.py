"""Deletes images: their files, and with them the charge for storing them."""

from datetime import datetime

from django.db import transaction

from billing.storage import objects_deleted
from easel.generation.models import Job, Output
from easel.generation.result_cache import result_forget
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
