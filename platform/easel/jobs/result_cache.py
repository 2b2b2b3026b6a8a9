"""Answers a repeated request with copies of the images that an earlier job generated.

A request that names its seed determines its images. The cache is per tenant, so that a quick answer never reveals
what another tenant asked for. An answered job gets copies of its own, which are retained and billed for storage
like those of any other job.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from uuid import UUID

import structlog
from django.db import connection
from django.db.models import Sum
from prometheus_client import Counter

from easel.catalog.models import AdapterVersion, ModelVersion, Precision
from easel.jobs.models import CachedResult, Job, Output
from easel.jobs.outputs import output_of
from easel.jobs.spec import ImageSpec
from easel.jobs.storage_keys import output_key
from easel.storage import store
from tenants.models import Moderation, Tenant

log = structlog.get_logger()
LOOKUPS = Counter("easel_result_cache_requests_total", "Requests that fix their seed, by outcome.", ["outcome"])
for outcome in ("hit", "miss"):
    LOOKUPS.labels(outcome)  # so that both series exist, at 0, from the start


def result_key(
    images: ImageSpec, *, version: ModelVersion, adapters: Sequence[tuple[AdapterVersion, float]], tenant: Tenant
) -> str:
    """Return the SHA-256, in hex, of everything that determines the images.

    Adapters count by their content and in any order, because their effects are added up.
    """
    content = {
        **asdict(images),
        "version": version.pk,
        "precision": version.precision,
        # A worker may merge adapters into full-precision weights, which rounds differently, but never into others.
        "adapters_merged": "maybe" if version.precision == Precision.NONE else "never",
        "adapters": sorted((adapter.sha256, scale) for adapter, scale in adapters),
    }
    if tenant.moderation == Moderation.ALL:  # only images that this policy has passed
        content["moderation"] = sorted(tenant.moderation_categories)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def result_find(*, tenant: Tenant, key: str) -> Job | None:
    """Return the job that generated the images of `key`; None if no cached job did."""
    found = CachedResult.objects.select_related("job__tenant").filter(tenant=tenant, key=key).first()
    return found.job if found else None


def result_used(job_id: UUID | None, *, now: datetime) -> None:
    """Record that the images of a job answered a request, which makes them the last to be evicted."""
    CachedResult.objects.filter(job=job_id).update(used_at=now)


def result_remember(job: Job, *, now: datetime) -> None:
    """Let a succeeded job answer later requests, if its own request fixed the seed."""
    if job.result_key:
        size_bytes = sum(job.outputs.values_list("size_bytes", flat=True))
        CachedResult.objects.update_or_create(
            tenant=job.tenant, key=job.result_key, defaults={"job": job, "size_bytes": size_bytes, "used_at": now}
        )


def results_trim(*, bytes_max: int) -> int:
    """Evict the least recently used results until the rest fit in `bytes_max`; return their number.

    The images themselves stay; they belong to their jobs.
    """
    excess_bytes = (CachedResult.objects.aggregate(size=Sum("size_bytes"))["size"] or 0) - bytes_max
    evicted = 0
    while excess_bytes > 0:
        for oldest in CachedResult.objects.order_by("used_at")[:1000]:
            if excess_bytes > 0:
                excess_bytes -= oldest.size_bytes
                evicted += oldest.delete()[0]
    return evicted


def images_copy(source: Job, *, to: Job) -> list[Output]:
    """Copy a job's images in the store; return the copies as outputs of `to`, not yet written to the database.

    Raises `FileNotFoundError` if an image is gone; then the copies made so far are deleted. The store may take seconds,
    so no transaction may be open meanwhile: its locks would stop the tenant's other admissions.
    """
    if connection.in_atomic_block:
        raise RuntimeError("images must be copied before a transaction begins")
    copies: list[Output] = []
    try:
        for output in source.outputs.filter(deleted_at=None).order_by("index"):
            content = io.BytesIO(store().get(output.storage_key))
            key = output_key(to, to.id, output.index)
            store().put(key, content, f"image/{to.output_format}")
            copies.append(output_of(to, output, key))
        if len(copies) != to.n:
            raise FileNotFoundError(f"only {len(copies)} of the {to.n} images of job {source.id} exist")
    except FileNotFoundError:
        images_discard(copies)
        raise
    return copies


def images_discard(copies: Sequence[Output]) -> None:
    """Delete copies that no job will use. A failure is only logged, because `orphans_sweep` deletes them later."""
    try:
        store().delete_all(copy.storage_key for copy in copies)
    except Exception:
        log.exception("cached_copies_left", keys=[copy.storage_key for copy in copies])
