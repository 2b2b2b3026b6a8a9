"""Submits the job of a request, once per Idempotency-Key, within the limits of the platform."""

import uuid
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest

from core import clock
from core.idempotency import Outcome, idempotent, outcome_find
from easel.api.resource import caller
from easel.jobs.admission import job_prepared
from easel.jobs.models import Job
from easel.jobs.spec import Limits, Spec


def submit(request: HttpRequest, spec: Spec, body: Any, endpoint: str) -> tuple[Outcome, Job | None]:
    """Admit a request at most once per Idempotency-Key. Returns no job if an earlier request made it."""
    tenant, now, job = caller(request).tenant, clock.now(), None
    key = request.META.get("HTTP_IDEMPOTENCY_KEY")
    # A replay is found before the request is checked again: by now its model may be gone.
    if replayed := outcome_find(tenant=tenant, endpoint=endpoint, key=key, body=body):
        return replayed, None
    prepared = job_prepared(
        api_key=caller(request),
        spec=spec,
        limits=Limits.of(settings.EASEL),
        job_id=uuid.uuid4(),
        request_id=request.request_id,  # type: ignore[attr-defined]
        now=now,
    )
    with prepared as admit:

        def make() -> UUID:
            nonlocal job
            job = admit()
            return job.id

        outcome = idempotent(tenant=tenant, endpoint=endpoint, key=key, body=body, now=now, make=make)
    return outcome, job


def replay_headers(outcome: Outcome) -> dict[str, str]:
    return {"Idempotent-Replayed": "true"} if outcome.replayed else {}
