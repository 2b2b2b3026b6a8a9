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
from core.idempotency import Outcome, idempotent
from core.revision import optimistic
from core.threads import SHORT, threaded
from easel.api.authentication import caller
from easel.api.errors import Unavailable, refusal_json
from easel.jobs.admission import Limits, Spec, job_submit
from easel.jobs.models import Job

log = structlog.get_logger()


def submit(request: Request, spec: Spec, endpoint: str) -> tuple[Outcome, Job | None]:
    """Admits a generation, once per Idempotency-Key; the job unless it was admitted before."""
    limits = Limits.of(settings.EASEL)
    now = clock.now()
    job: Job | None = None

    def make() -> UUID:
        nonlocal job
        job = job_submit(
            api_key=caller(request),
            spec=spec,
            limits=limits,
            job_id=uuid.uuid4(),
            request_id=request._request.request_id,  # type: ignore[attr-defined]
            now=now,
        )
        return job.id

    key = request.META.get("HTTP_IDEMPOTENCY_KEY")
    outcome = idempotent(
        tenant=caller(request).tenant, endpoint=endpoint, key=key, body=request.data, now=now, make=make
    )
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
