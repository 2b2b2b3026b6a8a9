"""Sends attempts to workers, one Celery message each, and asks workers to stop one.

All Redis keys of a pool begin with its namespace, so that the Redis user of a dedicated pool can be limited to it.
Redis may lose all of this: the lease of an attempt whose message is lost expires, and the job gets another attempt.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from celery import Celery
from django.conf import settings

from core.pipeline import PipelinedQuery, Query, run_query
from core.redis_client import CLIENT_NAME, redis_fail_fast
from easel.catalog.models import Pool, version_label
from easel.jobs.models import Attempt
from easel.jobs.storage_keys import output_key, preview_key
from easel.storage import store
from inference.contract import QUEUE, TASK_NAME, AdapterRef, GenerationTask, UploadTarget, cancel_key

SIGNED_URL_SECONDS = 3600  # of a PUT, at most
URL_GRACE_SECONDS = 120  # after the instant by which a URL should have been used, for a worker's retries
CANCEL_SECONDS = 3600  # longer than any attempt runs
_COPIED = ("request_id", "prompt", "width", "height", "steps", "output_format", "output_compression")


class Released(NamedTuple):
    """The job as its worker needs it: one row of `_RELEASED`."""

    id: UUID
    request_id: str
    tenant_slug: str
    namespace: str
    model_name: str
    version_number: int
    prompt: str
    width: int
    height: int
    steps: int
    seed: int
    n: int
    output_format: Any
    output_compression: int
    partial_images: int
    in_batch: bool
    created_at: datetime
    expires_at: datetime
    adapters: list[tuple[str, str, int, float, str]]  # name, sha256, bytes, scale, key in the store


_RELEASED = """
SELECT job.id, job.request_id, tenant.slug, pool.namespace, model.name, version.number, job.prompt, job.width,
    job.height, job.steps, job.seed, job.n, job.output_format, job.output_compression, job.partial_images,
    job.in_batch, job.created_at, job.expires_at, (
        SELECT coalesce(jsonb_agg(
            jsonb_build_array(adapter.name, file.sha256, file.size_bytes, used.scale, file.storage_key)
            ORDER BY used.position
        ), '[]')
        FROM jobs_jobadapter AS used
        JOIN catalog_adapterversion AS file ON file.id = used.adapter_version_id
        JOIN catalog_adapter AS adapter ON adapter.id = file.adapter_id
        WHERE used.job_id = job.id
    )
FROM jobs_job AS job
JOIN tenants_tenant AS tenant ON tenant.id = job.tenant_id
JOIN catalog_pool AS pool ON pool.id = job.pool_id
JOIN catalog_modelversion AS version ON version.id = job.model_version_id
JOIN catalog_model AS model ON model.id = version.model_id
WHERE job.id = ANY(%(jobs)s::uuid[])
"""


def send(attempts: Sequence[Attempt]) -> None:
    """Send each attempt to its job's pool. Raise kombu's `OperationalError` if Redis is unavailable."""
    if not attempts:
        return
    found = {job.id: job for job in run_query(_released(attempts))}
    for attempt in attempts:
        job = found[attempt.job_id]
        celery_for(job.namespace).send_task(
            TASK_NAME,
            args=[_task(job, attempt).to_dict()],
            queue=QUEUE,
            declare=(),  # reads nothing that a pool's workers may have written
            task_id=str(attempt.token),
            expires=attempt.lease_expires_at,
            ignore_result=True,
        )


def _released(attempts: Sequence[Attempt]) -> PipelinedQuery[list[Released]]:
    rows = yield Query(_RELEASED, {"jobs": [attempt.job_id for attempt in attempts]})
    return [Released._make((*row[:-1], json.loads(row[-1]))) for row in rows]


def _task(job: Released, attempt: Attempt) -> GenerationTask:
    # Of a folder the URLs end with the attempt. A bucket knows of none, so there each ends when it can't be needed.
    given = {"attempt": str(attempt.token), "base": settings.EASEL.internal_url}
    until_expiry = int((job.expires_at - attempt.dispatched_at).total_seconds()) + URL_GRACE_SECONDS
    put_seconds = min(SIGNED_URL_SECONDS, max(URL_GRACE_SECONDS, until_expiry))
    # A worker fetches adapters when it takes the task, which it does within the first lease.
    get_seconds = int((attempt.lease_expires_at - attempt.dispatched_at).total_seconds()) + URL_GRACE_SECONDS

    def put_url(key: str) -> str:
        content_type = f"image/{job.output_format}"
        return store().signed_url("PUT", key, seconds=put_seconds, content_type=content_type, **given)

    return GenerationTask(
        attempt_token=str(attempt.token),
        job_id=str(job.id),
        tenant=job.tenant_slug,
        model_version=version_label(job.model_name, job.version_number),
        **{name: getattr(job, name) for name in _COPIED},
        adapters=tuple(
            AdapterRef(
                name=name,
                sha256=sha256,
                size_bytes=size_bytes,
                scale=scale,
                url=store().signed_url("GET", key, seconds=get_seconds, **given),
            )
            for name, sha256, size_bytes, scale, key in job.adapters
        ),
        outputs=tuple(
            UploadTarget(
                index=index,
                seed=job.seed + index,
                url=put_url(output_key(job, attempt.token, index)),
                preview_urls=tuple(
                    put_url(preview_key(job, attempt.token, index, number)) for number in range(job.partial_images)
                ),
            )
            for index in range(job.n)
        ),
        expires_at=attempt.lease_expires_at.timestamp(),
        deadline_at=job.expires_at.timestamp(),
        yields=job.in_batch,
    )


def ask_to_cancel(pool: Pool, tokens: Iterable[str], *, now: datetime) -> None:
    """Ask the workers of a pool to stop attempts; they look at every beat."""
    for token in tokens:
        redis_fail_fast().set(cancel_key(pool.namespace, token), now.isoformat(), ex=CANCEL_SECONDS)


@cache
def celery_for(namespace: str) -> Celery:
    app = Celery(f"easel-{namespace}", broker=settings.EASEL.redis_url, set_as_current=False)
    app.conf.update(
        broker_transport_options={
            "global_keyprefix": f"{namespace}:",
            "socket_connect_timeout": 2,
            "max_retries": 1,
            "client_name": CLIENT_NAME,
        },
        broker_connection_timeout=2,
        task_publish_retry=False,  # the lease expires, and the job gets another attempt
        task_ignore_result=True,
    )
    return app
