"""Answers a request for what was drawn before from the images that are there.

An image is a function of its model version, adapters with their scales, prompt, size, steps and seed, so a request that
fixes its seed asks for certain images. They are looked up by a hash of all of that, the precision, and whether adapters
may be merged, per tenant: nobody can tell from a quick answer what another tenant asked for. The job that is answered
so has images of its own, copied, which live and are stored for as long as any job's.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import Sum
from prometheus_client import Counter

from billing.models import StoredObject
from billing.usage.storage import objects_stored
from easel.catalog.models import AdapterVersion, ModelVersion, Precision
from easel.jobs.models import CachedResult, Job, Output
from easel.jobs.storage_keys import output_key
from easel.storage import store
from tenants.models import Tenant

ASKED = Counter("easel_result_cache_requests_total", "Requests that fix their seed, by what they found.", ["outcome"])
for outcome in ("hit", "miss"):
    ASKED.labels(outcome)  # at 0 from the start


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """What the images of a request are a function of, besides model version and adapters."""

    prompt: str
    width: int
    height: int
    steps: int
    seed: int
    n: int
    output_format: str
    output_compression: int


def result_key(drawn: ImageSpec, *, version: ModelVersion, adapters: Sequence[tuple[AdapterVersion, float]]) -> str:
    """A SHA-256 in hex. Adapters count by their content, in any order: they add up."""
    content = {
        **asdict(drawn),
        "version": version.pk,
        "precision": version.precision,
        # A worker may merge adapters into full-precision weights, which rounds differently, and never into others.
        "adapters_merged": "maybe" if version.precision == Precision.NONE else "never",
        "adapters": sorted((adapter.sha256, scale) for adapter, scale in adapters),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def result_find(*, tenant: Tenant, key: str, now: datetime) -> Job | None:
    """The job whose images are the ones asked for, marked as used; None when there are none."""
    found = CachedResult.objects.select_related("job").filter(tenant=tenant, key=key).first()
    if found is None:
        return None
    CachedResult.objects.filter(pk=found.pk).update(used_at=now)
    return found.job


def result_remember(job: Job, *, now: datetime) -> None:
    """Has a succeeded job answer later requests for the same, if it was asked with its seed."""
    if job.result_key:
        size_bytes = sum(job.outputs.values_list("size_bytes", flat=True))
        CachedResult.objects.update_or_create(
            tenant=job.tenant, key=job.result_key, defaults={"job": job, "size_bytes": size_bytes, "used_at": now}
        )


def results_trim(*, bytes_max: int) -> int:
    """Forgets what was used longest ago beyond a number of bytes in all; returns how many. The images stay."""
    over = (CachedResult.objects.aggregate(size=Sum("size_bytes"))["size"] or 0) - bytes_max
    forgotten = 0
    while over > 0:
        for old in CachedResult.objects.order_by("used_at")[:1000]:
            if over > 0:
                over -= old.size_bytes
                forgotten += old.delete()[0]
    return forgotten


@transaction.atomic
def result_copy(source: Job, *, to: Job, now: datetime) -> None:
    """Gives a job copies of another's images. Raises `FileNotFoundError` when one of them is gone.

    A crash between the copies and the commit leaves files that no row names, as a lost attempt's are.
    """
    outputs = []
    for output in source.outputs.filter(deleted_at=None).order_by("index"):
        key = output_key(to, to.id, output.index)
        store().put(key, io.BytesIO(store().get(output.storage_key)), f"image/{to.output_format}")
        outputs.append(
            Output(
                job=to,
                index=output.index,
                seed=output.seed,
                storage_key=key,
                sha256=output.sha256,
                size_bytes=output.size_bytes,
            )
        )
    if len(outputs) != to.n:
        raise FileNotFoundError(f"{len(outputs)} of {to.n} images of {source.id} are there")
    Output.objects.bulk_create(outputs)
    sizes = {output.storage_key: output.size_bytes for output in outputs}
    objects_stored(project=to.project, kind=StoredObject.Kind.OUTPUT, sizes=sizes, now=now)
