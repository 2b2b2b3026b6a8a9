"""Notifies a tenant's webhooks that a job has ended, with its facts and cost, and without its prompt or images."""

from datetime import datetime
from typing import Any

from billing.usage.settlement import job_charged_micros
from easel.jobs.models import Job
from easel.webhooks.models import Event
from easel.webhooks.outbox import webhook_emit


def job_notify(job: Job, *, now: datetime) -> None:
    """Write the message to the webhooks' outbox, in the transaction that ends the job."""

    def data() -> dict[str, Any]:
        return {
            "id": str(job.id),
            "status": job.state,
            "project": job.project.slug,
            "model": job.model_version.model.name,
            "n": job.n,
            "size": f"{job.width}x{job.height}",
            "created_at": job.created_at.isoformat(),
            "finished_at": now.isoformat(),
            "error_code": job.error_code or None,
            "cost": {"amount_micros": job_charged_micros(job.id), "currency": job.tenant.currency},
        }

    webhook_emit(tenant=job.tenant, event=Event(f"job.{job.state}"), data=data, now=now)
