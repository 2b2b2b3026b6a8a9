"""Erases the batches and files of a tenant, for `privacy`."""

from datetime import datetime

from django.db import transaction
from django.db.models import QuerySet

from easel.batches.lifecycle import batch_cancel
from easel.batches.models import Batch, File, Line
from easel.storage import store
from tenants.models import Tenant


def batches_stop(*, tenant: Tenant, now: datetime) -> None:
    """Cancel the tenant's batches, and delete the lines that have no job."""
    for batch in Batch.objects.filter(tenant=tenant, status=Batch.Status.IN_PROGRESS):
        batch_cancel(batch=batch, now=now)
    lines_waiting(tenant).delete()


def lines_waiting(tenant: Tenant) -> QuerySet[Line]:
    """Return the lines that have no job yet."""
    return Line.objects.filter(batch__tenant=tenant, batch__ended_at=None, state=Line.State.WAITING)


@transaction.atomic
def batches_erase(*, tenant: Tenant) -> None:
    """Delete the tenant's batches, lines and files. None of its jobs may be unfinished."""
    store().delete_all(File.objects.filter(tenant=tenant).exclude(storage_key="").values_list("storage_key", flat=True))
    Batch.objects.filter(tenant=tenant).delete()  # with their lines
    File.objects.filter(tenant=tenant).delete()
