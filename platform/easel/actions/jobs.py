"""Jobs, and tenants' webhooks."""

from datetime import datetime
from typing import Any

from easel.actions.action import Action, Done
from easel.actions.subjects import DELIVERY, JOB, WEBHOOK


def _cancel(job: Any, actor: str, now: datetime) -> Done:
    from easel.jobs import lifecycle

    lifecycle.cancel(job=job, now=now)
    return Done(message="The job is canceled, or will be as soon as its worker stops.", subject=str(job.id))


def _enable(endpoint: Any, actor: str, now: datetime) -> Done:
    return _switch(endpoint, now, is_enabled=True, message="The webhook is enabled: what waited is sent now.")


def _disable(endpoint: Any, actor: str, now: datetime) -> Done:
    message = "The webhook is disabled: unsent messages wait until it is enabled; later events are not sent at all."
    return _switch(endpoint, now, is_enabled=False, message=message)


def _switch(endpoint: Any, now: datetime, *, is_enabled: bool, message: str) -> Done:
    from easel.webhooks.endpoints import endpoint_change

    endpoint_change(endpoint, changes={"enabled": is_enabled}, now=now)
    return Done(message=message, subject=str(endpoint.pk), details={"url": endpoint.url})


def _replay(delivery: Any, actor: str, now: datetime) -> Done:
    from easel.webhooks.outbox import delivery_replay

    delivery_replay(delivery, now=now)
    return Done(
        message="The message is sent again, under the same id.",
        subject=str(delivery.pk),
        tenant=delivery.endpoint.tenant,
        details={"url": delivery.endpoint.url},
    )


CANCEL = Action(
    name="job.cancel",
    explain="End a job; nothing is charged.",
    permission="jobs.change_job",
    subject=JOB,
    perform=_cancel,
    applies=lambda job: job.finished_at is None and job.cancel_requested_at is None,
    is_dangerous=True,
)
ENABLE = Action(
    name="webhook.enable",
    explain="Send a disabled webhook's messages again.",
    permission="webhooks.change_webhookendpoint",
    subject=WEBHOOK,
    perform=_enable,
    applies=lambda endpoint: endpoint.disabled_at is not None,
)
DISABLE = Action(
    name="webhook.disable",
    explain="Send nothing to a webhook until it is enabled.",
    permission="webhooks.change_webhookendpoint",
    subject=WEBHOOK,
    perform=_disable,
    applies=lambda endpoint: endpoint.disabled_at is None,
    is_dangerous=True,
)
REPLAY = Action(
    name="webhook.replay",
    label="Send again",
    explain="Send a message once more, under the same id.",
    permission="webhooks.change_webhookendpoint",
    subject=DELIVERY,
    perform=_replay,
)
ACTIONS = (CANCEL, ENABLE, DISABLE, REPLAY)
