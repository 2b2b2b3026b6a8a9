"""Generates a month of plausible use for the reports, by the code that serves real requests, with past times.

The names of its tenants, model and pool begin with `history`, and every project has the label `history: generated`.
No worker generates its pictures: a small image that says so is stored instead.
"""

import hashlib
import io
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache

import numpy as np
from django.conf import settings
from django.db import transaction
from PIL import Image, ImageDraw

from billing.ledger.postings import credit_grant
from billing.models import Meter
from billing.pricing.price_books import RateTerms, price_book_seed
from billing.usage.storage import storage_day_meter
from core.image_units import image_units
from core.pipeline import run_query
from easel.catalog.models import ModelVersion, Pool
from easel.catalog.workers import worker_seen
from easel.jobs import dispatch, fair_queueing, lifecycle
from easel.jobs.admission import job_submit
from easel.jobs.models import Attempt, Job
from easel.jobs.spec import Spec
from easel.jobs.storage_keys import output_key
from easel.seed import DEMO_LIMITS, PRICES
from easel.serving.models import Route
from easel.serving.routing import main_version
from easel.serving.versions import version_register, version_retire
from easel.storage import store
from inference.contract import AttemptFinished, StoredOutput, WorkerBeat
from tenants.accounts import project_create, tenant_create
from tenants.keys import key_issue
from tenants.models import ApiKey, Tenant

DAYS = 30
MODEL = POOL = WORKER = "history"
GPU_CLASS = "generated-gpu"
_CREDIT_MICROS = 200_000_000
# A GPU hour, in USD: what the provider asks, and what is charged for one that is busy.
_HOUR_COST, _HOUR_PRICE = Decimal("2.10"), Decimal("4.50")
_FAILURES = 0.02
_LOAD_SECONDS = 12.0
_SUBJECTS = ("a poster of a lighthouse", "a catalogue picture of a chair", "a map of an island", "a logo with a fox")


@dataclass(frozen=True, slots=True)
class Customer:
    """A generated tenant: its projects with their departments, its jobs on a working day and the sizes it asks for."""

    slug: str
    projects: dict[str, str]
    jobs_a_day: int
    sizes: tuple[str, ...]


CUSTOMERS = (
    Customer(
        "history-northwind",
        {"catalogue": "merchandising", "campaign": "marketing"},
        jobs_a_day=14,
        sizes=("512x512", "512x384", "256x256"),
    ),
    Customer(
        "history-harbour", {"newsroom": "editorial", "social": "marketing"}, jobs_a_day=8, sizes=("512x384", "256x256")
    ),
    Customer("history-meadow", {"game-art": "studio"}, jobs_a_day=5, sizes=("256x256", "512x512")),
)


@transaction.atomic
def history_make(*, now: datetime, progress: Callable[[int, int], None]) -> int:
    """Generate the month before `now`, once, and return its number of jobs; a second call returns 0.

    It calls `progress` with the days done and the days in all. One transaction holds the whole month, so that nobody
    meters a day or counts a job of an incomplete one.
    """
    if Tenant.objects.filter(slug=CUSTOMERS[0].slug).exists():
        return 0
    start = (now - timedelta(days=DAYS)).replace(hour=0, minute=0, second=0, microsecond=0)
    prices = (*PRICES, RateTerms(meter=Meter.GPU_SECOND, gpu_class=GPU_CLASS, unit_price=_HOUR_PRICE / 3600))
    price_book_seed(currency="USD", version=1, rates=prices, effective_at=start, now=now)
    pool, version = _model(start)
    keys = {customer.slug: _tenant(customer, start) for customer in CUSTOMERS}
    dice = random.Random(7)  # noqa: S311 - the same month every time
    jobs = 0
    for number in range(DAYS):
        day = start + timedelta(days=number)
        busy = 0.0
        for customer in CUSTOMERS:
            for asked_at in _times(customer, day, number, dice):
                if asked_at + timedelta(minutes=5) < now:
                    busy += _job(dice.choice(keys[customer.slug]), customer, pool, asked_at, dice)
                    jobs += 1
        _beats(pool, day, busy, now)
        progress(number + 1, DAYS)
    # No worker serves this model, so from now on nobody can call it.
    Route.objects.filter(version=version).delete()
    version_retire(version, now=now)
    for number in range(DAYS):
        storage_day_meter(day=(start + timedelta(days=number)).date(), now=now)
    return jobs


@transaction.atomic
def _model(now: datetime) -> tuple[Pool, ModelVersion]:
    """Create a model and a pool of their own, so that no real worker takes these jobs."""
    pool = Pool.objects.create(
        slug=POOL, namespace=f"easel-{POOL}", gpu_class=GPU_CLASS, gpu_hour_cost=_HOUR_COST, created_at=now
    )
    checkpoint = main_version(None).checkpoint
    return pool, version_register(model_name=MODEL, checkpoint=checkpoint, pool=pool, limits=DEMO_LIMITS, now=now)


@transaction.atomic
def _tenant(customer: Customer, now: datetime) -> list[ApiKey]:
    """Create the tenant; returns a key for each of its projects."""
    tenant, _ = tenant_create(slug=customer.slug, name=f"{customer.slug} (generated history)", now=now)
    credit_grant(tenant=tenant, amount_micros=_CREDIT_MICROS, reference=uuid.uuid4(), now=now, description="history")
    keys = []
    for slug, department in customer.projects.items():
        labels = {"department": department, "history": "generated"}
        project = project_create(tenant=tenant, slug=slug, labels=labels, now=now)
        keys.append(key_issue(project=project, pepper=settings.EASEL.secret_key, name="history", now=now)[0])
    return keys


def _times(customer: Customer, day: datetime, number: int, dice: random.Random) -> list[datetime]:
    """Return the times of a day's requests: fewer at weekends, more late in the month, most in the early afternoon."""
    weekend = day.weekday() >= 5
    wanted = customer.jobs_a_day * (0.25 if weekend else 1) * (1 + number / DAYS) * dice.uniform(0.7, 1.3)
    return sorted(day + timedelta(hours=min(23.9, max(0.1, dice.gauss(14, 3)))) for _ in range(round(wanted)))


def _beats(pool: Pool, day: datetime, busy_seconds: float, now: datetime) -> None:
    """Record the pool's worker: up for its load time and 1.5 times its busy seconds."""
    opened = day + timedelta(hours=8)
    up = timedelta(seconds=_LOAD_SECONDS + 1.5 * busy_seconds)
    for beat_at, done in ((opened + timedelta(seconds=_LOAD_SECONDS), 0.0), (opened + up, busy_seconds)):
        if beat_at < now:
            beat = WorkerBeat(
                worker=WORKER,
                gpu_class=GPU_CLASS,
                concurrency=0,  # the dispatcher sends it no work
                model_version="",
                started_at=opened.timestamp(),
                busy_seconds=done,
                attributed_seconds=done,
                load_seconds=_LOAD_SECONDS,
            )
            worker_seen(pool=pool, report=beat, now=beat_at)


@transaction.atomic
def _job(key: ApiKey, customer: Customer, pool: Pool, now: datetime, dice: random.Random) -> float:
    """Admit, lease and finish a job in one transaction, so that no dispatcher sees it; returns its GPU seconds."""
    job = job_submit(
        api_key=key,
        spec=Spec(
            model=MODEL,
            prompt=dice.choice(_SUBJECTS),
            size=dice.choice(customer.sizes),
            n=dice.choice((1, 1, 1, 2, 4)),
            user=f"user-{dice.randrange(20)}",
            metadata={"history": "generated"},
        ),
        config=settings.EASEL,
        job_id=uuid.UUID(int=dice.getrandbits(128), version=4),
        request_id="history",
        now=now,
    )
    begun_at = now + timedelta(seconds=dice.expovariate(1))
    [attempt] = run_query(dispatch.attempts_insert([fair_queueing.Chosen(job.id, 0.0)], begun_at, lease_seconds=15))
    units = image_units(width=job.width, height=job.height, n=job.n)
    gpu_seconds = round(float(units) * job.steps * 0.12 * dice.lognormvariate(0, 0.2), 6)
    failed = dice.random() < _FAILURES
    report = AttemptFinished(
        attempt_token=str(attempt.token),
        worker=WORKER,
        gpu_class=GPU_CLASS,
        outcome="failed" if failed else "succeeded",
        error_code="out_of_memory" if failed else "",
        gpu_seconds=gpu_seconds,
        prompt_tokens=len(job.prompt.split()),
        outputs=() if failed else _outputs(job, attempt),
    )
    ended_at = attempt.dispatched_at + timedelta(seconds=gpu_seconds * dice.uniform(1.0, 1.6) + 0.3)
    Attempt.objects.filter(token=attempt.token).update(started_at=attempt.dispatched_at)
    lifecycle.finish(pool=pool, report=report, now=ended_at, attempts_max=1)
    return gpu_seconds


def _outputs(job: Job, attempt: Attempt) -> tuple[StoredOutput, ...]:
    content = _picture(job.width, job.height)
    sha256, outputs = hashlib.sha256(content).hexdigest(), []
    for index in range(job.n):
        store().put(output_key(job, attempt.token, index), io.BytesIO(content), "image/png")
        outputs.append(StoredOutput(index=index, seed=job.seed + index, sha256=sha256, size_bytes=len(content)))
    return tuple(outputs)


@cache
def _picture(width: int, height: int) -> bytes:
    """Return a PNG that says what it is, with enough noise for a plausible file size."""
    noise = np.random.default_rng(7).integers(224, 226, (height, width, 1), np.uint8)
    image = Image.fromarray(np.repeat(noise, 3, axis=2))
    ImageDraw.Draw(image).text((12, 12), "generated history", fill="#55506b")
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
