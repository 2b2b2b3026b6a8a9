"""Jobs, batches, and tenants' webhooks."""

from datetime import datetime
from typing import Any

from easel.actions.action import Done, action
from easel.actions.subjects import BATCH, DELIVERY, JOB, WEBHOOK


@action(
    "job.cancel",
    subject=JOB,
    applies=lambda job: job.finished_at is None and job.cancel_requested_at is None,
    is_dangerous=True,
)
def cancel(job: Any, actor: str, now: datetime) -> Done:
    """End a job; nothing is charged."""
    from easel.jobs import lifecycle

    lifecycle.cancel(job=job, now=now)
    return Done("The job is canceled, or will be as soon as its worker stops.")


@action("batch.cancel", subject=BATCH, applies=lambda batch: batch.status == "in_progress", is_dangerous=True)
def cancel_batch(batch: Any, actor: str, now: datetime) -> Done:
    """End a batch; what workers have begun is finished and charged."""
    from easel.batches.lifecycle import batch_cancel

    batch_cancel(batch=batch, now=now)
    return Done("The batch is canceled as soon as its running images are finished.", subject=batch.pk)


@action("webhook.enable", subject=WEBHOOK, applies=lambda endpoint: endpoint.disabled_at is not None)
def enable(endpoint: Any, actor: str, now: datetime) -> Done:
    """Send a disabled webhook's messages again."""
    return _switch(endpoint, now, is_enabled=True, message="The webhook is enabled: what waited is sent now.")


@action("webhook.disable", subject=WEBHOOK, applies=lambda endpoint: endpoint.disabled_at is None, is_dangerous=True)
def disable(endpoint: Any, actor: str, now: datetime) -> Done:
    """Send nothing to a webhook until it is enabled."""
    message = "The webhook is disabled: unsent messages wait until it is enabled; later events are not sent at all."
    return _switch(endpoint, now, is_enabled=False, message=message)


def _switch(endpoint: Any, now: datetime, *, is_enabled: bool, message: str) -> Done:
    from easel.webhooks.endpoints import endpoint_change

    endpoint_change(endpoint, changes={"enabled": is_enabled}, now=now)
    return Done(message, subject=endpoint.pk, details={"url": endpoint.url})


@action("webhook.replay", label="Send again", permission="webhooks.change_webhookendpoint", subject=DELIVERY)
def replay(delivery: Any, actor: str, now: datetime) -> Done:
    """Send a message once more, under the same id."""
    from easel.webhooks.outbox import delivery_replay

    delivery_replay(delivery, now=now)
    return Done(
        "The message is sent again, under the same id.",
        subject=delivery.pk,
        tenant=delivery.endpoint.tenant,
        details={"url": delivery.endpoint.url},
    )
