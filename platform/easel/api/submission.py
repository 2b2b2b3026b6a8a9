"""Submits the job of a request, once per Idempotency-Key, within the limits of the platform.

An images call waits for its job, so its client may disconnect and send the request again. Its retry is known by the
Idempotency-Key, or by the number that OpenAI's libraries give it (`easel.jobs.retries`).
"""

import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest

from billing.ledger.budget_months import BudgetExceeded
from billing.ledger.holds import InsufficientBalance
from billing.pricing.rating import PriceMissing
from core import clock
from core.errors import IdempotencyKeyInvalid, IdempotencyKeyReused, OutcomeUnknown
from core.idempotency import Outcome, fingerprint, idempotent, outcome_find, outcome_forget
from easel.api.errors import UnsupportedParameter
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
from easel.jobs.moderation import ModerationUnavailable
from easel.jobs.retries import CallTaken, NumberedRequest, call_insert, call_join, job_return
from easel.jobs.spec import Spec
from tenants.quotas import ConcurrencyExceeded, ImageQuotaExceeded, QueueFull

# What can refuse a request for images, and what can besides where the request makes a job.
ADMIT_ERRORS = (
    UnsupportedParameter,
    PromptInvalid,
    PromptBlocked,
    ModerationUnavailable,
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
RETRY_COUNT_MAX = 1000  # of any library's retries; what is no number up to this is ignored


class ClientDisconnected(Exception):
    """The client disconnected before its request was admitted, so nothing was made."""


def submit(request: HttpRequest, spec: Spec, body: Any, endpoint: str) -> tuple[Outcome, Job | None]:
    """Admit a request at most once per Idempotency-Key. Returns no job if an earlier request made it."""
    # A replay is found before the request is checked again: by now its model may be gone.
    if replayed := replay_find(request, body, endpoint):
        return replayed, None
    return _admitted(request, spec, body, endpoint)


def submit_waiting(request: HttpRequest, spec: Spec, body: Any, endpoint: str, *, outlives_client: bool) -> Outcome:
    """Admit a request whose client waits, once per Idempotency-Key and once per call of a client that numbers retries.

    Raises `ClientDisconnected` if the client is gone before the job is written, unless its job `outlives_client`.
    """
    if replayed := replay_find(request, body, endpoint):
        if job_return(job_id=replayed.resource_id):
            return replayed
        # The job was canceled because its client was away, so the client's return makes another.
        key = request.META["HTTP_IDEMPOTENCY_KEY"]
        outcome_forget(tenant=caller(request).tenant, endpoint=endpoint, key=key, resource_id=replayed.resource_id)
    numbered = _numbered(request, body, endpoint)
    while True:
        joined = call_join(numbered) if numbered is not None and numbered.retry_count else None
        if joined is not None and not joined.is_canceled:
            return Outcome(joined.job_id, replayed=True)
        try:
            outcome, _ = _admitted(
                request,
                spec,
                body,
                endpoint,
                numbered=numbered,
                replaces=None if joined is None else joined.job_id,
                outlives_client=outlives_client,
            )
        except CallTaken:
            continue
        return outcome


def retry_count_of(request: HttpRequest) -> int | None:
    """Return how often the client has sent this request before; None if it doesn't say, or has an Idempotency-Key."""
    text = request.META.get("HTTP_X_STAINLESS_RETRY_COUNT", "")
    if has_key(request) or not (text.isascii() and text.isdigit() and len(text) <= 4):
        return None
    return int(text) if int(text) <= RETRY_COUNT_MAX else None


def has_key(request: HttpRequest) -> bool:
    return "HTTP_IDEMPOTENCY_KEY" in request.META


def is_repeatable(request: HttpRequest) -> bool:
    """Return True if the same request again finds the job of this one."""
    return has_key(request) or retry_count_of(request) is not None


def is_disconnected(request: HttpRequest) -> bool:
    """Return True once the server has noticed that the client went away (`easel.asgi`)."""
    return getattr(request, "is_disconnected", False)


def _numbered(request: HttpRequest, body: Any, endpoint: str) -> NumberedRequest | None:
    retry_count = retry_count_of(request)
    if retry_count is None:
        return None
    return NumberedRequest(caller(request), endpoint, fingerprint(body), retry_count, clock.now())


def replay_find(request: HttpRequest, body: Any, endpoint: str) -> Outcome | None:
    """Return what an earlier request with the same Idempotency-Key made. Raises as `outcome_find`."""
    key = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if key is None:
        return None
    return outcome_find(tenant=caller(request).tenant, endpoint=endpoint, key=key, body=body)


def make_once(request: HttpRequest, body: Any, endpoint: str, *, now: datetime, make: Callable[[], UUID]) -> Outcome:
    """Run `make` in one transaction, once per Idempotency-Key of the caller. Raises as `idempotent`."""
    key = request.META.get("HTTP_IDEMPOTENCY_KEY")
    return idempotent(tenant=caller(request).tenant, endpoint=endpoint, key=key, body=body, now=now, make=make)


def _admitted(
    request: HttpRequest,
    spec: Spec,
    body: Any,
    endpoint: str,
    *,
    numbered: NumberedRequest | None = None,
    replaces: UUID | None = None,
    outlives_client: bool = True,
) -> tuple[Outcome, Job | None]:
    api_key, now = caller(request), clock.now()
    prepared = job_prepared(
        api_key=api_key,
        spec=spec,
        config=settings.EASEL,
        job_id=uuid.uuid4(),
        request_id=request.request_id,  # type: ignore[attr-defined]
        now=now,
    )
    with prepared as (job, admit):

        def make() -> UUID:
            if not outlives_client and is_disconnected(request):
                raise ClientDisconnected
            beside = () if numbered is None else (call_insert(numbered, job, replaces=replaces),)
            return admit(*beside)

        outcome = make_once(request, body, endpoint, now=now, make=make)
    return outcome, None if outcome.replayed else job
