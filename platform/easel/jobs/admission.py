"""Admits requests: holds what a job may cost, counts it towards its quotas, and writes it to the queue.

The caller's transaction holds the tenant's credit row from the hold to the commit, so everything slow comes before it:
the plan, and the copies of cached images in the object store. Admission then takes two round trips to PostgreSQL, one
for all queries of `job_admit` and one for the commit. An `Idempotency-Key`, a look-up in the result cache, a monthly or
concurrent limit, an adapter, a budget or a queue near its limit takes more.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import structlog
from django.db import transaction

from billing.ledger.holds import hold_take
from billing.usage.settlement import settle
from core.pipeline import PipelinedQuery, run_pipelined
from core.revision import revision_validate
from easel.config import Config
from easel.jobs.dimensions import dimensions_of, names_of
from easel.jobs.models import Job, JobAdapter, Output, State, job_insert
from easel.jobs.notices import job_notify
from easel.jobs.outputs import outputs_record
from easel.jobs.plan import CACHE_HIT, Plan, job_plan
from easel.jobs.queue_depth import queue_check, unfinished_jobs
from easel.jobs.result_cache import LOOKUPS, images_copy, images_discard, result_used
from easel.jobs.spec import Spec
from tenants.models import ApiKey, Quota
from tenants.quotas import ConcurrencyExceeded, owner_of, quotas_locked, units_take

log = structlog.get_logger()


class Admit(Protocol):
    """Writes a prepared job and returns its id. Its queries and those of `beside` share a round trip."""

    def __call__(self, *beside: PipelinedQuery[Any]) -> UUID: ...


@contextmanager
def job_prepared(
    *,
    api_key: ApiKey,
    spec: Spec,
    config: Config,
    job_id: UUID,
    request_id: str,
    batch_until: datetime | None = None,
    now: datetime,
) -> Iterator[tuple[Job, Admit]]:
    """Plan a request and copy the cached images that answer it. Yields the job and `admit`, which writes it and returns
    its id; the caller calls that in its transaction.

    The copies are deleted on exit unless `admit` returned. If the commit then fails, no output names them, and
    `orphans_sweep` deletes them: whether a commit failed is not always known here.
    """
    plan = job_plan(api_key=api_key, spec=spec, config=config, job_id=job_id, batch_until=batch_until, now=now)
    job = plan.job(job_id=job_id, request_id=request_id, now=now)
    copies: list[Output] = []
    if plan.cached_from is not None:
        try:
            copies = images_copy(plan.cached_from, to=job)
        except FileNotFoundError:  # deleted since the plan found them
            plan = replace(plan, cached_from=None)
            job.cached_from = None
    is_admitted = False

    def admit(*beside: PipelinedQuery[Any]) -> UUID:
        nonlocal is_admitted
        job_admit(job, plan, beside=beside, now=now)
        if copies:
            _answer(job, copies, plan, now)
        if plan.result_key:
            LOOKUPS.labels("hit" if copies else "miss").inc()
        is_admitted = True
        return job.id

    try:
        yield job, admit
    finally:
        if not is_admitted:
            images_discard(copies)


def job_submit(*, api_key: ApiKey, spec: Spec, config: Config, job_id: UUID, request_id: str, now: datetime) -> Job:
    """Prepare and admit a request. Raise a `DomainError` that names the field at fault; then nothing is written."""
    prepared = job_prepared(api_key=api_key, spec=spec, config=config, job_id=job_id, request_id=request_id, now=now)
    with prepared as (job, admit), transaction.atomic(savepoint=False):
        admit()
    return job


def job_admit(job: Job, plan: Plan, *, beside: Sequence[PipelinedQuery[Any]] = (), now: datetime) -> None:
    """Hold what a plan may cost, count it, and write its job and what `beside` writes, in the caller's transaction.

    Raises `RevisionChanged` if the plan was made from a configuration that is no longer in force, and the refusals of
    the hold, the quotas and the queue. A line of a batch takes no place in the queue and none of the concurrent jobs:
    its tenant's other jobs have the whole of both limits.
    """
    api_key = plan.api_key
    hold = hold_take(
        tenant=api_key.tenant,
        project=plan.project,
        api_key=api_key,
        amount_micros=plan.prices.max_micros(plan.quantities_max),
        reference=job.id,
        now=now,
    )
    # The hold comes before the quotas, because the end of a job settles its hold before it returns units: both take
    # their locks in one order.
    quotas, first = plan.quotas, [revision_validate(), hold]
    if any(quota.image_units_per_month is not None or quota.concurrent_jobs_max is not None for quota in quotas):
        run_pipelined(*first)
        # Lock the quotas, so that two admissions at once do not both take the last place.
        quotas, first = quotas_locked(api_key), []
        if not plan.in_batch:
            _concurrency_check(api_key, quotas)
    units = units_take(api_key=api_key, quotas=quotas, image_units=plan.image_units, now=now)
    written = run_pipelined(*first, units, job_insert(job), *beside)
    jobs = written[len(first)]
    if plan.cached_from is None and not plan.in_batch:  # a cached answer never waits in the queue
        queue_check(api_key=api_key, quotas=quotas, queued_jobs_max=plan.queued_jobs_max, jobs=jobs, now=now)
    if plan.adapters:
        JobAdapter.objects.bulk_create(
            JobAdapter(job=job, position=position, adapter_version=version, scale=requested.scale)
            for position, (version, requested) in enumerate(zip(plan.adapters, plan.spec.adapters, strict=True))
        )


def _concurrency_check(api_key: ApiKey, quotas: list[Quota]) -> None:
    for quota in quotas:
        limit = quota.concurrent_jobs_max
        if limit is not None and unfinished_jobs(api_key.tenant_id, quota.family_id).count() >= limit:
            raise ConcurrencyExceeded(limit=limit, owner=owner_of(quota))


def _answer(job: Job, copies: list[Output], plan: Plan, now: datetime) -> None:
    """Finish an admitted job with copies of cached images, for the price of a request and of a cache hit."""
    outputs_record(job, copies, now=now)
    settle(
        project=job.project,
        job_id=job.id,
        quantities=CACHE_HIT,
        dimensions={**dimensions_of(job), "cached": "yes"},
        prices=plan.prices,
        now=now,
    )
    job.state, job.finished_at = State.SUCCEEDED, now
    job.save(update_fields=["state", "finished_at"])
    result_used(job.cached_from_id, now=now)
    job_notify(job, now=now)
    log.info("job_answered_from_cache", **names_of(job), cached_from=str(job.cached_from_id))
