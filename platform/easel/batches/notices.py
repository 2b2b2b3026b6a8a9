"""Notifies a tenant's webhooks that a batch has ended, with its counts and the names of its files."""

from datetime import datetime

from typing_extensions import TypedDict

from easel.batches.models import Batch
from easel.webhooks.models import Event
from easel.webhooks.outbox import webhook_emit


class RequestCounts(TypedDict):
    total: int
    completed: int
    failed: int


class BatchEventData(TypedDict):
    id: str
    status: str
    output_file_id: str | None
    error_file_id: str | None
    request_counts: RequestCounts


def batch_notify(batch: Batch, *, now: datetime) -> None:
    """Write the message to the webhooks' outbox, in the transaction that ends the batch."""

    def data() -> BatchEventData:
        return {
            "id": str(batch),
            "status": batch.status,
            "output_file_id": str(batch.output_file) if batch.output_file else None,
            "error_file_id": str(batch.error_file) if batch.error_file else None,
            "request_counts": {
                "total": batch.lines_total,
                "completed": batch.lines_completed,
                "failed": batch.lines_failed,
            },
        }

    webhook_emit(tenant=batch.tenant, event=Event(f"batch.{batch.status}"), data=data, now=now)
