"""What tests of more than one app need."""

import dataclasses
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.conf import settings
from django.db import transaction

from billing.pricing.price_books import price_book_seed
from core import clock
from easel.catalog.models import ModelVersion
from easel.jobs import dispatch, lifecycle
from easel.jobs.admission import job_prepared, job_submit
from easel.jobs.lifecycle import beat
from easel.jobs.models import Job
from easel.jobs.spec import RequestedAdapter, Spec
from easel.seed import DEMO_LIMITS, PRICES
from easel.serving.rollouts import RolloutPlan
from easel.serving.versions import version_register
from inference.contract import AttemptFinished, StoredOutput
from tests.conftest import NOW, Customer, worker_beat

LIMITS = dataclasses.replace(settings.EASEL, prompt_chars_max=100, job_ttl_seconds=3600, queued_jobs_max=10_000)


@pytest.fixture
def one_day(monkeypatch: pytest.MonkeyPatch) -> date:
    """Returns the day of the whole test: the clock of the API and of `end_job` stands still, so it isn't midnight."""
    now = datetime.now(UTC)
    monkeypatch.setattr(clock, "now", lambda: now)
    return now.date()


@pytest.fixture
def submit(version) -> Callable[..., Job]:
    """Admits a job: `submit(alice, size="512x512")`."""

    def make(customer: Customer, *, now=NOW, job_id: uuid.UUID | None = None, **spec: Any) -> Job:
        spec["adapters"] = tuple(RequestedAdapter(name=name) for name in spec.pop("adapters", ()))
        return job_submit(
            api_key=customer.key,
            spec=Spec(**{"prompt": "a red circle", "model": version.model.name, **spec}),
            config=LIMITS,
            job_id=job_id or uuid.uuid4(),
            request_id="request-1",
            now=now,
        )

    return make


@pytest.fixture
def submit_line(version) -> Callable[..., Job]:
    """Admits a job as a line of a batch."""

    def make(customer: Customer, *, now=NOW, **spec: Any) -> Job:
        prepared = job_prepared(
            api_key=customer.key,
            spec=Spec(**{"prompt": "a red circle", "model": version.model.name, **spec}),
            config=LIMITS,
            job_id=uuid.uuid4(),
            request_id="batch",
            batch_until=NOW + timedelta(days=1),
            now=now,
        )
        with prepared as (job, admit), transaction.atomic():
            admit()
        return job

    return make


@pytest.fixture
def end(pool) -> Callable[..., Job]:
    """Plays the worker: `end(job, seconds=2.0, outcome="failed")` takes a job and ends it that much later."""

    def make(
        job: Job, *, seconds: float = 1.0, gpu_seconds: float = 1.5, outcome: str = "succeeded", **fields: Any
    ) -> Job:
        taken_at = job.created_at
        if not job.attempts.exists():
            beat(pool=job.pool, report=worker_beat(concurrency=1000), now=taken_at, lease_seconds=15)
            dispatch.release(pool=job.pool, now=taken_at, lease_seconds=15)
        attempt = job.attempts.get()
        images = range(job.n if outcome == "succeeded" else 0)
        report = AttemptFinished(
            attempt_token=str(attempt.token),
            worker="w1",
            gpu_class="cpu",
            outcome=outcome,
            gpu_seconds=gpu_seconds,
            outputs=tuple(StoredOutput(index=i, seed=job.seed + i, sha256="0" * 64, size_bytes=10) for i in images),
            **{**({"error_code": "worker_error"} if outcome == "failed" else {}), **fields},
        )
        lifecycle.finish(pool=job.pool, report=report, now=taken_at + timedelta(seconds=seconds), attempts_max=1)
        return Job.objects.get(id=job.id)

    return make


@pytest.fixture
def half_price() -> str:
    """A currency of this test alone, whose list takes half off the work of batches."""
    currency = "".join(chr(65 + int(digit, 16)) for digit in uuid.uuid4().hex[:3])
    price_book_seed(
        currency=currency, version=1, rates=PRICES, batch_discount=Decimal("0.5"), effective_at=NOW, now=NOW
    )
    return currency


@pytest.fixture
def second(version) -> ModelVersion:
    """A second version of the test's model, of half the steps, that serves nobody yet."""
    return version_register(
        model_name=version.model.name,
        checkpoint=version.checkpoint,
        pool=version.pool,
        limits=dataclasses.replace(DEMO_LIMITS, steps_default=4),
        now=NOW,
    )


@pytest.fixture
def plan() -> RolloutPlan:
    """A canary of two stages."""
    return RolloutPlan(stages=(20, 100), stage_seconds=60, jobs_min=5, error_rate_max=0.2, p95_ratio_max=2.0)


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Changes Easel's settings for one test: `settings_of(request_wait_seconds=0)`."""

    def change(**values: Any) -> None:
        monkeypatch.setattr(settings, "EASEL", dataclasses.replace(settings.EASEL, **values))

    return change
