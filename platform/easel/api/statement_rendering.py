"""Answers about statements: how they, their lines and what is behind a line look in JSON."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.conf import settings

from billing.invoices.documents import title_of
from billing.invoices.lines import projects_of
from billing.models import Charge, Statement, StatementLine
from billing.money import money_json
from easel.jobs.models import Attempt


def statement_json(statement: Statement) -> dict[str, Any]:
    url = f"{settings.EASEL.public_url}/v1/statements/{statement.id}"
    return {
        "id": str(statement.id),
        "object": statement.kind,
        "title": title_of(statement),
        "number": statement.number,
        "status": statement.state,
        "corrects": str(statement.corrects_id) if statement.corrects_id else None,
        "period_start": statement.period_start,
        "period_end": statement.period_end,
        "time_zone": statement.time_zone,
        "billed_to": statement.billed_to,
        "subtotal": money_json(statement.subtotal_micros, statement.currency),
        "tax_name": statement.tax_name,
        "tax_rate": f"{statement.tax_rate.normalize():f}",
        "tax": money_json(statement.tax_micros, statement.currency),
        "total": money_json(statement.total_micros, statement.currency),
        "finalised_at": statement.finalised_at,
        "documents": {form: f"{url}/{form}" for form in ("html", "pdf", "csv")},
    }


def statement_whole_json(statement: Statement, lines: Sequence[StatementLine]) -> dict[str, Any]:
    projects = projects_of(lines)
    return {
        **statement_json(statement),
        "lines": [
            {
                "position": line.position,
                "project": projects[line.project_id].slug if line.project_id else None,
                "labels": projects[line.project_id].labels if line.project_id else {},
                "meter": line.meter or None,
                "model": line.model or None,
                "kind": line.kind,
                "description": line.description,
                "quantity": None if line.quantity is None else f"{line.quantity.normalize():f}",
                "charges": line.charges,
                "amount": money_json(line.amount_micros, statement.currency),
            }
            for line in lines
        ],
    }


def charges_json(charges: Sequence[Charge]) -> list[dict[str, Any]]:
    """What is behind the charges of a line: the price, the job, its attempts and their share of the device."""
    attempts: dict[UUID, list[Attempt]] = defaultdict(list)
    jobs = {charge.usage_record.job_id for charge in charges if charge.usage_record.job_id}
    for attempt in Attempt.objects.filter(job_id__in=jobs).order_by("job", "number"):
        attempts[attempt.job_id].append(attempt)
    return [
        {
            "id": str(charge.id),
            "kind": charge.kind,
            "charged_at": charge.created_at,
            "used_at": charge.usage_record.occurred_at,
            "quantity": f"{charge.usage_record.quantity.normalize():f}",
            "price": {
                "unit_price": f"{charge.rate.unit_price.normalize():f}",
                "mode": charge.rate.mode,
                "price_book": str(charge.rate.price_book),
                "used_before": f"{charge.used_before.normalize():f}",
                "discount": f"{charge.discount.normalize():f}",
            },
            "amount": money_json(charge.amount_micros, charge.currency),
            "corrects": str(charge.usage_record.corrects_id) if charge.usage_record.corrects_id else None,
            "reason": charge.usage_record.reason or None,
            "job_id": str(charge.usage_record.job_id) if charge.usage_record.job_id else None,
            "attempts": [_attempt_json(one) for one in attempts.get(charge.usage_record.job_id, ())]
            if charge.usage_record.job_id
            else [],
        }
        for charge in charges
    ]


def _attempt_json(attempt: Attempt) -> dict[str, Any]:
    ran = attempt.started_at and attempt.finished_at and (attempt.finished_at - attempt.started_at).total_seconds()
    return {
        "number": attempt.number,
        "status": attempt.state,
        "worker": attempt.worker,
        "gpu_class": attempt.gpu_class,
        "started_at": attempt.started_at,
        "finished_at": attempt.finished_at,
        "steps_done": attempt.steps_done,
        "gpu_seconds": float(attempt.gpu_seconds),
        # Of the time between its start and its end, how much of the device was its own: the rest was its neighbours'.
        "device_share": min(1.0, float(attempt.gpu_seconds) / ran) if ran else None,
    }
