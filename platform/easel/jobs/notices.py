"""Notifies a tenant's webhooks that a job has ended, with its facts and cost, and without its prompt or images."""

from datetime import datetime

from typing_extensions import TypedDict

from billing.usage.queries import job_costs
from easel.jobs.models import Job
from easel.jobs.usage_json import JobUsage, usage_json
from easel.webhooks.models import Event
from easel.webhooks.outbox import webhook_emit


class CostOfEvent(TypedDict):
    amount_micros: int
    currency: str


class JobEventData(TypedDict):
    id: str
    status: str
    project: str
    model: str
    n: int
    size: str
    created_at: str
    finished_at: str
    error_code: str | None
    cost: CostOfEvent
    usage: JobUsage | None


def job_notify(job: Job, *, now: datetime) -> None:
    """Write the message to the webhooks' outbox, in the transaction that ends the job.

    The lines of a batch have no messages of their own: the batch has one at its end.
    """
    if job.in_batch:
        return

    def data() -> JobEventData:
        cost = job_costs([job.id]).get(job.id)
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
            "cost": {"amount_micros": cost.cost_micros if cost else 0, "currency": job.tenant.currency},
            "usage": usage_json(job, cost) if cost else None,
        }

    webhook_emit(tenant=job.tenant, event=Event(f"job.{job.state}"), data=data, now=now)
