"""Answers: how jobs, adapters and models look in JSON."""

import base64
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.conf import settings
from redis.exceptions import RedisError

from billing.money import money_json
from billing.usage.queries import JobCost, job_costs
from easel.api.rate_limit import Bucket, look
from easel.catalog.models import Adapter, ModelVersion
from easel.jobs.errors import ImagesDeleted, JobFailed
from easel.jobs.models import (
    Attempt,
    Job,
    JobAdapter,
    Output,
    State,
)
from easel.jobs.spec import Spec
from easel.jobs.storage_keys import preview_key
from easel.serving.experiment_report import ArmReport
from easel.serving.models import Arm, Experiment, Rollout
from easel.serving.tiers import Quality, steps_of, tier_named
from easel.storage import store
from tenants.models import ApiKey, Quota
from tenants.quotas import LIMITS, next_month, quotas_of, units_used
from tenants.retention import retention_of

URL_SECONDS = 3600
# Failures that the request itself caused: trying the same again can't help.
CALLER_FAULTS = {"prompt_too_long"}
TOKEN_PIXELS = 16 * 16


def jobs_json(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    costs = job_costs([job.id for job in jobs])
    return [
        _job_json(
            job,
            costs.get(job.id),
            attempts=list(job.attempts.all()),
            outputs=list(job.outputs.all()),
            adapters=list(job.adapters.all()),
        )
        for job in jobs
    ]


def job_json(job: Job) -> dict[str, Any]:
    return jobs_json([job])[0]


def admitted_json(job: Job, spec: Spec) -> dict[str, Any]:
    """A job as it was admitted: it has no attempts and no images yet, and what it has is known."""
    may_have_adapters = bool(spec.adapters) or job.arm_id is not None
    adapters = list(job.adapters.all()) if may_have_adapters else ()
    return _job_json(job, None, attempts=(), outputs=(), adapters=adapters)


def _job_json(
    job: Job,
    cost: JobCost | None,
    *,
    attempts: Sequence[Attempt],
    outputs: Sequence[Output],
    adapters: Sequence[JobAdapter],
) -> dict[str, Any]:
    path = f"{settings.EASEL.public_url}/v1/jobs/{job.id}"
    return {
        "id": str(job.id),
        "object": "job",
        "status": job.state,
        "created_at": job.created_at,
        "expires_at": job.expires_at,
        "finished_at": job.finished_at,
        "deleted_at": job.deleted_at,
        "cached_from": str(job.cached_from_id) if job.cached_from_id else None,
        "model": job.model_version.model.name,
        "model_version": job.model_version.number,
        "prompt": None if job.deleted_at else job.prompt,
        "n": job.n,
        "size": f"{job.width}x{job.height}",
        "quality": job.quality,
        "tier": job.tier,
        "steps": job.steps,
        "seed": job.seed,
        "adapters": [
            {
                "name": used.adapter_version.adapter.name,
                "version": used.adapter_version.number,
                "scale": used.scale,
            }
            for used in adapters
        ],
        "experiment": {"name": job.arm.experiment.name, "arm": job.arm.name} if job.arm else None,
        "project": job.project.slug,
        "metadata": job.metadata,
        "attempts": len(attempts),
        "progress": {
            "steps_done": attempts[-1].steps_done if attempts else job.steps * job.n if job.cached_from_id else 0,
            "steps_total": job.steps * job.n,
        },
        "images": [
            {"url": _image_url(output.storage_key), "seed": output.seed, "size_bytes": output.size_bytes}
            for output in outputs
            if output.deleted_at is None
        ],
        "usage": usage_json(job, cost) if cost else None,
        "error": {"code": job.error_code, "message": job.error_message} if job.error_code else None,
        "urls": {"get": path, "events": f"{path}/events", "cancel": f"{path}/cancel", "feedback": f"{path}/feedback"},
    }


def usage_json(job: Job, cost: JobCost) -> dict[str, Any]:
    """OpenAI's token counts (an image token is 16x16 pixels) and what was measured and charged."""
    drawn = job.cached_from or job
    succeeded = max(drawn.attempts.all(), key=lambda attempt: attempt.number)
    output_tokens = job.n * job.width * job.height // TOKEN_PIXELS
    return {
        "input_tokens": succeeded.prompt_tokens,
        "input_tokens_details": {"text_tokens": succeeded.prompt_tokens, "image_tokens": 0},
        "output_tokens": output_tokens,
        "total_tokens": succeeded.prompt_tokens + output_tokens,
        "cached": job.cached_from is not None,
        "image_units": float(cost.image_units),
        "gpu_seconds": float(cost.gpu_seconds),
        "cost": money_json(cost.cost_micros, job.tenant.currency),
    }


def images_json(job: Job, *, response_format: str) -> dict[str, Any]:
    """OpenAI's `ImagesResponse`. Raises `JobFailed` when the job has no images, `ImagesDeleted`."""
    return {
        "created": int(job.created_at.timestamp()),
        "data": _images(job, response_format),
        **_settings_json(job),
        "tier": job.tier,
        "usage": usage_json(job, job_costs([job.id])[job.id]),
        "job_id": str(job.id),
        "seed": job.seed,
    }


def stream_partial_json(job: Job, attempt: Attempt, *, index: int, number: int) -> dict[str, Any]:
    """OpenAI's `ImageGenPartialImageEvent`. Raises `FileNotFoundError`."""
    return {
        "type": "image_generation.partial_image",
        "b64_json": _base64(preview_key(job, attempt.token, index, number)),
        "partial_image_index": number,
        "created_at": int(job.created_at.timestamp()),
        **_settings_json(job),
        "image_index": index,
    }


def stream_completed_json(job: Job, *, response_format: str) -> list[dict[str, Any]]:
    """OpenAI's `ImageGenCompletedEvent` of each image; `usage` is the job's. Raises as `images_json`."""
    answer = images_json(job, response_format=response_format)
    return [
        {
            "type": "image_generation.completed",
            **image,
            "created_at": answer["created"],
            **_settings_json(job),
            "usage": answer["usage"],
            "job_id": answer["job_id"],
            "seed": job.seed + index,
            "image_index": index,
        }
        for index, image in enumerate(answer["data"])
    ]


def _settings_json(job: Job) -> dict[str, str]:
    return {
        "background": "opaque",
        "output_format": job.output_format,
        "quality": job.quality,
        "size": f"{job.width}x{job.height}",
    }


def _images(job: Job, response_format: str) -> list[dict[str, str]]:
    if job.state == State.FAILED:
        failure = JobFailed(job.error_code, job.error_message)
        if job.error_code in CALLER_FAULTS:
            failure.http_status, failure.type = 400, "invalid_request_error"
        raise failure
    if job.state != State.SUCCEEDED:
        how = "expired before it was drawn" if job.state == State.EXPIRED else "was canceled"
        failure = JobFailed(f"job_{job.state}", f"the job {job.id} {how}")
        failure.http_status = 503 if job.state == State.EXPIRED else 409
        raise failure
    outputs = list(job.outputs.filter(deleted_at=None))
    if not outputs:
        raise ImagesDeleted(f"the images of the job {job.id} were deleted")
    if response_format == "url":
        return [{"url": _image_url(output.storage_key)} for output in outputs]
    return [{"b64_json": _base64(output.storage_key)} for output in outputs]


def _base64(storage_key: str) -> str:
    return base64.b64encode(store().get(storage_key)).decode()


def adapter_json(adapter: Adapter) -> dict[str, Any]:
    return {
        "id": str(adapter.id),
        "object": "adapter",
        "name": adapter.name,
        "model": adapter.model.name,
        "status": "retired" if adapter.retired_at else "ready",
        "created_at": adapter.created_at,
        "versions": [
            {
                "version": version.number,
                "sha256": version.upload_sha256,
                "size_bytes": version.size_bytes,
                "rank": version.rank_max,
                "modules": version.modules,
                "created_at": version.created_at,
            }
            for version in sorted(adapter.versions.all(), key=lambda version: version.number)
        ],
    }


def model_json(version: ModelVersion) -> dict[str, Any]:
    """OpenAI's `Model`, with the sizes, steps and qualities it takes; where a quality has no tier, the size decides."""
    return {
        "id": version.model.name,
        "object": "model",
        "created": int(version.model.created_at.timestamp()),
        "owned_by": "easel",
        "version": version.number,
        "default": version.model.is_default,
        "size_default": version.size_default,
        "side_min": version.side_min,
        "side_max": version.side_max,
        "steps_default": version.steps_default,
        "steps_max": version.steps_max,
        "qualities": [
            {"quality": quality, "tier": tier_named(quality), "steps": steps_of(version, quality=quality)}
            for quality in Quality.values
        ],
        "fast_image_units_max": float(version.fast_image_units_max),
    }


def quota_json(api_key: ApiKey, *, now: datetime) -> dict[str, Any]:
    """Each limit that is set, whose it is, and how much of it is used; and how long what was made is kept."""
    quotas, units = quotas_of(api_key), units_used(api_key, now=now)
    in_hand = Job.objects.filter(tenant=api_key.tenant, finished_at=None)
    queued = in_hand.filter(state=State.QUEUED)
    buckets = _buckets(quotas, now)
    rows = []
    for quota in quotas:
        own = quota.api_key_id is not None
        bucket = buckets.get(quota.api_key_id)
        used: dict[str, Decimal | int] = {
            "concurrent_jobs_max": (in_hand.filter(api_key=api_key) if own else in_hand).count(),
            "queued_jobs_max": (queued.filter(api_key=api_key) if own else queued).count(),
            "image_units_per_month": units[quota.api_key_id],
            **({"requests_per_minute": bucket.limit - bucket.remaining} if bucket else {}),
        }
        resets_at = {
            "image_units_per_month": next_month(now),
            **({"requests_per_minute": now + timedelta(seconds=bucket.reset_seconds)} if bucket else {}),
        }
        for name in LIMITS:
            if (limit := getattr(quota, name)) is None:
                continue
            rows.append(
                {
                    "limit": name,
                    "of": "api_key" if own else "account",
                    "value": float(limit),
                    "used": float(used[name]) if name in used else None,
                    "remaining": max(0.0, float(limit - used[name])) if name in used else None,
                    "resets_at": resets_at.get(name),
                }
            )
    kept = retention_of(api_key.tenant, default=settings.EASEL)
    return {"object": "list", "data": rows, "retention": asdict(kept)}


def _buckets(quotas: Sequence[Quota], now: datetime) -> dict[UUID | None, Bucket]:
    """By key; none while Redis is away, when nothing is counted either."""
    limited = [quota for quota in quotas if quota.requests_per_minute is not None]
    try:
        return (
            dict(zip((quota.api_key_id for quota in limited), look(limited, now=now), strict=True)) if limited else {}
        )
    except RedisError:
        return {}


def rollout_json(rollout: Rollout) -> dict[str, Any]:
    running = rollout.state == Rollout.State.RUNNING
    return {
        "id": str(rollout.id),
        "object": "rollout",
        "model": rollout.model.name,
        "stable_version": rollout.stable.number,
        "candidate_version": rollout.candidate.number,
        "status": rollout.state,
        "stages": rollout.stages,
        "candidate_percent": rollout.stages[rollout.stage] if running else 100 * (rollout.state == "promoted"),
        "verdict": rollout.verdict,
        "started_at": rollout.started_at,
        "ended_at": rollout.ended_at,
    }


def experiment_json(experiment: Experiment) -> dict[str, Any]:
    return {
        "id": str(experiment.id),
        "object": "experiment",
        "name": experiment.name,
        "model": experiment.model.name,
        "status": experiment.state,
        "started_at": experiment.started_at,
        "stopped_at": experiment.stopped_at,
        "arms": [arm_json(arm) for arm in experiment.arms.all()],
    }


def arm_json(arm: Arm) -> dict[str, Any]:
    return {
        "name": arm.name,
        "weight": arm.weight,
        "version": arm.version.number if arm.version else None,
        "adapters": arm.adapters,
        "steps": arm.steps,
    }


def report_json(experiment: Experiment, reports: Sequence[ArmReport]) -> dict[str, Any]:
    """An experiment with what its arms did; `p_value` is against the first arm."""
    currency = experiment.tenant.currency
    return {
        **experiment_json(experiment),
        "report": [
            {
                "arm": report.arm.name,
                "jobs": report.jobs,
                "succeeded": report.succeeded,
                "failed": report.failed,
                "feedback": report.feedback,
                "cost": money_json(report.cost_micros, currency),
                "seconds_p50": report.seconds_p50,
                "seconds_p95": report.seconds_p95,
                "score": asdict(report.score),
                "error_rate": asdict(report.error_rate),
                "seconds": asdict(report.seconds),
                "job_cost_micros": asdict(report.job_cost_micros),
            }
            for report in reports
        ],
    }


def _image_url(storage_key: str) -> str:
    return store().signed_url("GET", storage_key, seconds=URL_SECONDS, base=settings.EASEL.public_url)
