"""Submits the job of a request, once per Idempotency-Key, within the limits of the platform."""

import uuid
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest

from core import clock
from core.idempotency import Outcome, idempotent
from easel.api.resource import caller
from easel.jobs.admission import Limits, Spec, job_submit
from easel.jobs.models import Job


def submit(request: HttpRequest, spec: Spec, body: Any, endpoint: str) -> tuple[Outcome, Job | None]:
    """Admit a generation, once per Idempotency-Key. Return its outcome, and the job unless this is a replay."""
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
            request_id=request.request_id,  # type: ignore[attr-defined]
            now=now,
        )
        return job.id

    key = request.META.get("HTTP_IDEMPOTENCY_KEY")
    outcome = idempotent(tenant=caller(request).tenant, endpoint=endpoint, key=key, body=body, now=now, make=make)
    return outcome, job


def replay_headers(outcome: Outcome) -> dict[str, str]:
    return {"Idempotent-Replayed": "true"} if outcome.replayed else {}
