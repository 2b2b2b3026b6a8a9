"""The way to the workers and back: one Celery message per attempt out, a Redis stream of reports in.

Everything of a pool lies under its namespace's prefix, so that a dedicated pool's Redis user needs no more.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache

import redis
from celery import Celery
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from easel.generation.keys import output_key, preview_key
from easel.generation.models import Attempt, Job
from easel.registry.models import Pool
from easel.storage import store
from inference.contract import QUEUE, TASK_NAME, AdapterRef, GenerationTask, OutputSlot, cancel_key

CAPABILITY_SECONDS = 3600


def send(attempts: Sequence[Attempt]) -> None:
    """Sends each attempt to its job's pool. Raises `OperationalError` of kombu when Redis is away."""
    jobs = Job.objects.select_related("tenant", "pool", "model_version__model").prefetch_related(
        "adapters__adapter_version__adapter"
    )
    found = jobs.in_bulk([attempt.job_id for attempt in attempts])
    for attempt in attempts:
        job = found[attempt.job_id]
        celery_for(job.pool.namespace).send_task(
            TASK_NAME,
            args=[task_of(job, attempt).to_dict()],
            queue=QUEUE,
            task_id=str(attempt.token),
            expires=attempt.lease_expires_at,
            ignore_result=True,
        )


def task_of(job: Job, attempt: Attempt) -> GenerationTask:
    """All that a worker is told of a job."""
    base = settings.EASEL.internal_url

    def put_url(key: str) -> str:
        content_type = f"image/{job.output_format}"
        return store().signed_url("PUT", key, seconds=CAPABILITY_SECONDS, content_type=content_type, base=base)

    return GenerationTask(
        attempt_token=str(attempt.token),
        job_id=str(job.id),
        request_id=job.request_id,
        tenant=job.tenant.slug,
        model_version=job.model_version.label,
        prompt=job.prompt,
        width=job.width,
        height=job.height,
        steps=job.steps,
        output_format=job.output_format,  # type: ignore[arg-type]
        output_compression=job.output_compression,
        adapters=tuple(
            AdapterRef(
                name=used.adapter_version.adapter.name,
                sha256=used.adapter_version.sha256,
                size_bytes=used.adapter_version.size_bytes,
                scale=used.scale,
                url=store().signed_url("GET", used.adapter_version.storage_key, seconds=CAPABILITY_SECONDS, base=base),
            )
            for used in job.adapters.all()
        ),
        outputs=tuple(
            OutputSlot(
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
    )


def ask_to_cancel(pool: Pool, tokens: Iterable[str], *, now: datetime) -> None:
    """Leaves word for the worker, which looks at every beat; kept an hour, longer than any attempt."""
    for token in tokens:
        redis_asked_once().set(cancel_key(pool.namespace, token), now.isoformat(), ex=3600)


@cache
def celery_for(namespace: str) -> Celery:
    app = Celery(f"easel-{namespace}", broker=settings.EASEL.redis_url, set_as_current=False)
    app.conf.update(
        broker_transport_options={
            "global_keyprefix": f"{namespace}:",
            "socket_connect_timeout": 2,
            "max_retries": 1,
        },
        broker_connection_timeout=2,
        task_publish_retry=False,  # the lease runs out and the job is tried again
        task_ignore_result=True,
    )
    return app


@cache
def redis_asked_once() -> "redis.Redis":
    """For whoever has a client waiting: a server that doesn't answer at once is away."""
    return redis.Redis.from_url(
        settings.EASEL.redis_url, socket_connect_timeout=0.5, socket_timeout=0.5, retry=Retry(NoBackoff(), 0)
    )


@cache
def redis_client() -> "redis.Redis":
    return redis.Redis.from_url(
        settings.EASEL.redis_url, socket_connect_timeout=2, socket_timeout=10, health_check_interval=30
    )
