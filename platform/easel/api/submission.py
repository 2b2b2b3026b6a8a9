"""How a request makes a job: once per Idempotency-Key, within the limits of the platform."""

import uuid
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponseBase
from rest_framework.request import Request

from core import clock
from core.idempotency import Outcome, idempotent, outcome_find
from core.revision import optimistic
from core.threads import SHORT, threaded
from easel.api.authentication import caller
from easel.api.errors import Unavailable, refusal_json
from easel.jobs.admission import job_prepared
from easel.jobs.models import Job
from easel.jobs.spec import Limits, Spec

log = structlog.get_logger()


def submit(request: Request, spec: Spec, endpoint: str) -> tuple[Outcome, Job | None]:
    """Admit a request at most once per Idempotency-Key. Returns no job if an earlier request made it."""
    tenant, now, job = caller(request).tenant, clock.now(), None
    key = request.META.get("HTTP_IDEMPOTENCY_KEY")
    # A replay is found before the request is checked again: by now its model may be gone.
    if replayed := outcome_find(tenant=tenant, endpoint=endpoint, key=key, body=request.data):
        return replayed, None
    prepared = job_prepared(
        api_key=caller(request),
        spec=spec,
        limits=Limits.of(settings.EASEL),
        job_id=uuid.uuid4(),
        request_id=request._request.request_id,  # type: ignore[attr-defined]
        now=now,
    )
    with prepared as admit:

        def make() -> UUID:
            nonlocal job
            job = admit()
            return job.id

        outcome = idempotent(tenant=tenant, endpoint=endpoint, key=key, body=request.data, now=now, make=make)
    return outcome, job


def replay_headers(outcome: Outcome) -> dict[str, str]:
    return {"Idempotent-Replayed": "true"} if outcome.replayed else {}


def submitting(view: Callable[..., HttpResponseBase]) -> Callable[..., Coroutine[Any, Any, HttpResponseBase]]:
    """A view that makes jobs, as an asynchronous one; by `core.configuration.optimistic`.

    Failures of ours are no refusals to confirm.
    """
    once_or_twice = optimistic(view, is_final=lambda answer: answer.status_code >= 500)

    @wraps(view)
    def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        _ = request.body  # kept by the request from here on
        try:
            return once_or_twice(request, *args, **kwargs)
        except (OperationalError, InterfaceError) as error:
            # A refusal was to be confirmed, and that is outside of what the framework handles.
            log.warning("dependency_away", error=repr(error))
            return refusal_json(Unavailable())

    return threaded(wrapper, SHORT)
