"""`easel job`, `batch` and `webhook`: show and cancel jobs; cancel batches; switch webhooks, send messages again."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import click

from easel.cli.action_commands import group_of
from easel.cli.django_ready import django_ready
from easel.cli.tables import Rows, list_command, print_fields, print_rows

DELIVERIES = 50


job = group_of("job")
webhook = group_of("webhook")
batch = group_of("batch")
BATCHES = 50


@list_command(batch, of_tenant=True)
def batch_list(tenant: Any) -> Rows:
    """List a tenant's latest batches."""
    from easel.batches.queries import batches_page, waiting_for

    found, _ = batches_page(tenant=tenant, limit=BATCHES, after=None, now=datetime.now(UTC))
    return [
        {
            "id": str(one),
            "status": one.status,
            "lines": one.lines_total,
            "completed": one.lines_completed,
            "failed": one.lines_failed,
            "waiting_for": (waiting_for(one) or {}).get("code"),
            "created_at": one.created_at.isoformat(timespec="seconds"),
            "expires_at": one.expires_at.isoformat(timespec="seconds"),
        }
        for one in found
    ]


@job.command("show")
@click.argument("job_id", type=click.UUID, metavar="JOB_ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def job_show(job_id: UUID, as_json: bool) -> None:
    """Show a job's place in the queue, and its timeline.

    The timeline says what happened, when, and why the job waited.
    """
    with django_ready():
        from django.conf import settings

        from easel.jobs.errors import JobNotFound
        from easel.jobs.models import Job
        from easel.jobs.queue_place import queue_place
        from easel.jobs.timeline import job_timeline

        now = datetime.now(UTC)
        found = Job.objects.select_related("tenant", "pool").filter(pk=job_id).first()
        if found is None:
            raise JobNotFound(f"there is no job {job_id}")
        attempts = list(found.attempts.all())
        moments = job_timeline(found, attempts, lease_seconds=settings.EASEL.lease_seconds, now=now)
        fields: dict[str, Any] = {
            "id": str(found.pk),
            "tenant": found.tenant.slug,
            "pool": found.pool.slug,
            "status": str(found.state),
            "request_id": found.request_id or None,
            "queue": queue_place(found, now=now),
        }
    rows = [
        {**moment._asdict(), "happened_at": moment.happened_at.isoformat(timespec="milliseconds")} for moment in moments
    ]
    if as_json:
        print_fields({**fields, "timeline": rows}, as_json)
        return
    place = {f"queue.{name}": value for name, value in (fields.pop("queue") or {}).items()}
    print_fields({**fields, **place}, as_json)
    click.echo()
    print_rows([{name: "" if value is None else value for name, value in row.items()} for row in rows], as_json)


@list_command(webhook, of_tenant=True)
def webhook_list(tenant: Any) -> Rows:
    """List a tenant's webhooks."""
    from easel.webhooks.models import WebhookEndpoint

    return [
        {
            "id": str(found.pk),
            "url": found.url,
            "enabled": found.disabled_at is None,
            "disabled_reason": found.disabled_reason,
        }
        for found in WebhookEndpoint.objects.filter(tenant=tenant).order_by("created_at")
    ]


@list_command(webhook, "deliveries")
@click.argument("webhook_id", type=click.UUID, metavar="ID")
def webhook_deliveries(webhook_id: UUID) -> Rows:
    """List a webhook's latest deliveries."""
    from easel.webhooks.models import WebhookDelivery

    found = WebhookDelivery.objects.filter(endpoint=webhook_id).select_related("message")
    return [
        {
            "id": str(one.pk),
            "event": one.message.event,
            "state": one.state,
            "created_at": one.created_at.isoformat(timespec="seconds"),
        }
        for one in found.order_by("-created_at", "-id")[:DELIVERIES]
    ]
