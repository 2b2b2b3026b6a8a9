"""Notifies tenants of budget thresholds: once by webhook and in the audit log, at least once by e-mail."""

from datetime import datetime, timedelta
from functools import partial
from smtplib import SMTPException
from typing import Any

import structlog
from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.db import transaction
from typing_extensions import TypedDict

from billing.models import BudgetCrossing
from billing.money import format_micros
from billing.profiles import profile_of
from core.audit import audit_record
from easel.webhooks.models import Event
from easel.webhooks.outbox import webhook_emit

log = structlog.get_logger()
BATCH = 100
MAIL_RETRIES = timedelta(days=1)


@transaction.atomic
def crossings_notify(*, now: datetime) -> int:
    """Send new crossings to their tenants' webhooks and write them to the audit log; return their number."""
    due = _of_budgets().filter(notified_at=None).select_for_update(of=("self",), skip_locked=True)
    crossings = list(due.order_by("crossed_at", "id")[:BATCH])
    for crossing in crossings:
        budget = crossing.budget_month.budget
        tenant, event, details = budget.tenant, Event.BUDGET_CROSSED, crossing_json(crossing)
        audit_record(actor="platform", action=event, subject=str(budget), tenant=tenant, details=details, now=now)
        webhook_emit(tenant=tenant, event=event, data=partial(crossing_json, crossing), now=crossing.crossed_at)
        crossing.notified_at = now
        crossing.save(update_fields=["notified_at"])
    return len(crossings)


def crossings_mail(*, now: datetime) -> int:
    """Send an e-mail for each new crossing to its tenant's billing address; return the number sent.

    Skips crossings if there is no mail server or no address. An e-mail that fails ends the call, so that a server that
    doesn't answer is waited for once, and is tried again for a day.
    """
    sent = 0
    connection = get_connection() if settings.EASEL.email_url else None
    due = _of_budgets().filter(mailed_at=None, crossed_at__gt=now - MAIL_RETRIES).order_by("crossed_at", "id")
    for crossing in due[:BATCH]:
        address = profile_of(crossing.budget_month.budget.tenant).email
        if connection is not None and address:
            try:
                connection.open()
                _mail(crossing, address, connection).send()
            except (SMTPException, OSError) as error:
                log.warning("budget_mail_failed", budget=str(crossing.budget_month.budget_id), error=repr(error))
                break
            sent += 1
        else:
            missing = "the tenant has no address" if connection is not None else "EASEL_EMAIL_URL is not set"
            log.info("budget_mail_skipped", budget=str(crossing.budget_month.budget_id), reason=missing)
        BudgetCrossing.objects.filter(pk=crossing.pk).update(mailed_at=now)
    if connection is not None:
        connection.close()
    return sent


class BudgetEventData(TypedDict):
    budget_id: str
    project: str | None
    api_key: str | None
    month: str
    threshold_percent: int
    amount_micros: int
    spent_micros: int
    currency: str
    hard_stop: bool
    reached_at: str


def crossing_json(crossing: BudgetCrossing) -> BudgetEventData:
    """Return the data of a crossing's event."""
    month = crossing.budget_month
    budget = month.budget
    return {
        "budget_id": str(budget.pk),
        "project": budget.project.slug if budget.project else None,
        "api_key": budget.api_key.key_id if budget.api_key else None,
        "month": month.month.isoformat(),
        "threshold_percent": crossing.percent,
        "amount_micros": budget.amount_micros,
        "spent_micros": crossing.spent_micros,
        "currency": budget.currency,
        "hard_stop": budget.hard_stop,
        "reached_at": crossing.crossed_at.isoformat(),
    }


def _of_budgets() -> Any:
    budget = "budget_month__budget"
    return BudgetCrossing.objects.select_related(f"{budget}__tenant", f"{budget}__project", f"{budget}__api_key")


def _mail(crossing: BudgetCrossing, address: str, connection: Any) -> EmailMessage:
    month, budget = crossing.budget_month, crossing.budget_month.budget
    spent = format_micros(crossing.spent_micros, budget.currency)
    amount = format_micros(budget.amount_micros, budget.currency)
    stop = "Requests that would go over the budget are refused." if budget.hard_stop else "No request is refused."
    return EmailMessage(
        subject=f"{crossing.percent} % of the budget of {budget} for {month.month:%Y-%m} is spent",
        body=f"{spent} of the {amount} that {budget} has for {month.month:%Y-%m} are spent.\n{stop}\n",
        to=[address],
        connection=connection,
    )
