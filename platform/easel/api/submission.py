"""Submits the job of a request, once per Idempotency-Key, within the limits of the platform."""

import uuid
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.http import HttpRequest

from billing.ledger.budget_months import BudgetExceeded
from billing.ledger.holds import InsufficientBalance
from billing.pricing.rating import PriceMissing
from core import clock
from core.errors import IdempotencyKeyInvalid, IdempotencyKeyReused, OutcomeUnknown
from core.idempotency import Outcome, idempotent, outcome_find
from easel.api.rate_limit import RateLimited
from easel.api.resource import caller
from easel.catalog.errors import AdapterBaseWrong, AdapterNotFound, AdapterRetired, ModelNotFound
from easel.jobs.admission import job_prepared
from easel.jobs.errors import (
    DeadlineInvalid,
    ProjectNotFound,
    PromptBlocked,
    PromptInvalid,
    SizeInvalid,
    StepsInvalid,
)
from easel.jobs.models import Job
from easel.jobs.spec import Spec
from tenants.quotas import ConcurrencyExceeded, ImageQuotaExceeded, QueueFull

# What can refuse a request for images, and what can besides where the request makes a job.
ADMIT_ERRORS = (
    PromptInvalid,
    PromptBlocked,
    SizeInvalid,
    StepsInvalid,
    DeadlineInvalid,
    ModelNotFound,
    AdapterNotFound,
    AdapterRetired,
    AdapterBaseWrong,
    ProjectNotFound,
    PriceMissing,
)
IDEMPOTENCY_ERRORS = (IdempotencyKeyInvalid, IdempotencyKeyReused, OutcomeUnknown)
SUBMIT_ERRORS = (
    RateLimited,
    *ADMIT_ERRORS,
    InsufficientBalance,
    BudgetExceeded,
    ImageQuotaExceeded,
    ConcurrencyExceeded,
    QueueFull,
    *IDEMPOTENCY_ERRORS,
)
REPLAYED: Mapping[str, str] = {"Idempotent-Replayed": "true"}  # the header of an answer that an earlier request caused


def submit(request: HttpRequest, spec: Spec, body: Any, endpoint: str) -> tuple[Outcome, Job | None]:
    """Admit a request at most once per Idempotency-Key. Returns no job if an earlier request made it."""
    api_key, now = caller(request), clock.now()
    key = request.META.get("HTTP_IDEMPOTENCY_KEY")
    call: dict[str, Any] = {"tenant": api_key.tenant, "endpoint": endpoint, "key": key, "body": body}
    # A replay is found before the request is checked again: by now its model may be gone.
    if key is not None and (replayed := outcome_find(**call)):
        return replayed, None
    prepared = job_prepared(
        api_key=api_key,
        spec=spec,
        config=settings.EASEL,
        job_id=uuid.uuid4(),
        request_id=request.request_id,  # type: ignore[attr-defined]
        now=now,
    )
    with prepared as (job, admit):
        outcome = idempotent(**call, now=now, make=admit)
    return outcome, None if outcome.replayed else job
