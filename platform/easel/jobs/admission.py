"""Admission: from a request to a queued job with its hold, in one transaction."""

import contextlib
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import structlog
from django.db import transaction

from billing.ledger.holds import hold_take
from billing.models import Meter
from billing.pricing.rating import Prices, Quantity
from billing.usage.settlement import settle
from core.pipeline import PipelinedQuery, run_pipelined
from core.revision import revision_validate
from easel.catalog import adapters
from easel.catalog.models import (
    AdapterVersion,
    ModelVersion,
    Pool,
    PoolTier,
)
from easel.config import Config
from easel.jobs.dimensions import dimensions_of, names_of
from easel.jobs.errors import (
    DeadlineInvalid,
    ProjectNotFound,
    PromptInvalid,
    SizeInvalid,
    StepsInvalid,
)
from easel.jobs.models import (
    Job,
    JobAdapter,
    State,
    job_insert,
)
from easel.jobs.notices import job_notify
from easel.jobs.policy import prompt_check, prompt_clean
from easel.jobs.queue_depth import queue_check
from easel.jobs.result_cache import (
    ASKED,
    ImageSpec,
    result_copy,
    result_find,
    result_key,
)
from easel.serving import routing
from easel.serving.experiments import arm_for
from easel.serving.models import Arm
from easel.serving.tiers import Quality, steps_of, tier_of
from tenants.models import ApiKey, Project, Quota, Tenant
from tenants.quotas import ConcurrencyExceeded, owner_of, quotas_locked, quotas_of, tightest, units_take

log = structlog.get_logger()
SIZE_MULTIPLE = 16  # a latent pixel is 8x8 pixels and a token 2x2 of those
ASPECT_MAX = 3
SEED_MAX = 2**53 - 1  # what a JSON number holds exactly
_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
# Control characters but tab, line feed and carriage return; lone surrogates, which no UTF-8 text can hold.
_UNUSABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

_REQUEST = Quantity(meter=Meter.REQUEST, amount=Decimal(1))
_HIT = (_REQUEST, Quantity(meter=Meter.CACHE_HIT, amount=Decimal(1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedAdapter:
    name: str
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a request asks for; `None` and "auto" take the model version's default."""

    prompt: str
    model: str | None = None
    n: int = 1
    size: str = "auto"
    quality: str = Quality.AUTO
    steps: int | None = None
    seed: int | None = None
    adapters: tuple[RequestedAdapter, ...] = ()
    output_format: str = "png"
    output_compression: int = 100
    project: str | None = None
    user: str = ""
    cache: bool = True
    partial_images: int = 0
    priority: int = 0
    expires_in_seconds: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The platform's own: what no tenant may pass, and how many jobs may wait of one that has no limit of its own."""

    prompt_chars_max: int
    job_ttl_seconds: int
    queued_jobs_max: int

    @classmethod
    def of(cls, config: Config) -> "Limits":
        return cls(
            prompt_chars_max=config.prompt_chars_max,
            job_ttl_seconds=config.job_ttl_seconds,
            queued_jobs_max=config.queued_jobs_max,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a request that was checked would do: who draws it where, and what it can cost."""

    spec: Spec
    api_key: ApiKey
    quotas: list[Quota]
    queued_jobs_max: int
    project: Project
    version: ModelVersion
    arm: Arm | None
    pool: Pool
    tier: PoolTier
    uses: list[AdapterVersion]
    drawn: ImageSpec
    ttl_seconds: int
    prices: Prices
    key: str
    source: Job | None  # whose images answer it
    drawing: list[Quantity]  # at most

    @property
    def most(self) -> list[Quantity]:
        """What it can be charged for at most."""
        return _named(_HIT, self.version, self.tier) if self.source else self.drawing


def job_submit(*, api_key: ApiKey, spec: Spec, limits: Limits, job_id: UUID, request_id: str, now: datetime) -> Job:
    """Admits a request: checks it, holds what it may cost, and queues the job.

    Raises a `DomainError` that names the field at fault, and then nothing is written.
    """
    plan = job_plan(api_key=api_key, spec=spec, limits=limits, job_id=job_id, now=now)
    if plan.source is not None:
        with contextlib.suppress(FileNotFoundError), transaction.atomic():  # deleted since it was found
            job = job_admit(plan, job_id=job_id, request_id=request_id, now=now)
            _answer(job, plan.source, plan.prices, now)
            ASKED.labels("hit").inc()
            return job
    if plan.key:
        ASKED.labels("miss").inc()
    with transaction.atomic(savepoint=False):
        return job_admit(replace(plan, source=None), job_id=job_id, request_id=request_id, now=now)


def job_plan(*, api_key: ApiKey, spec: Spec, limits: Limits, job_id: UUID, now: datetime) -> Plan:
    """Checks a request and finds what it would do; writes nothing. Raises a `DomainError` as `job_submit`."""
    tenant = api_key.tenant
    spec = replace(spec, prompt=prompt_clean(spec.prompt))
    check_prompt(spec.prompt, chars_max=limits.prompt_chars_max)
    prompt_check(spec.prompt, tenant=tenant)
    quotas = quotas_of(api_key)
    ttl_seconds = _lifetime(spec, limits)
    version, arm, spec = _assign(tenant, spec, job_id)
    width, height = parse_size(spec.size, version=version, quotas=quotas)
    steps = steps_of(version, quality=spec.quality) if spec.steps is None else spec.steps
    if not 1 <= steps <= version.steps_max:
        raise StepsInvalid(f"steps is 1 to {version.steps_max} for {version.model.name}", param="steps")
    if (bound := tightest(quotas, "steps_max")) and steps > bound.value:
        raise StepsInvalid(f"{steps} steps are more than {bound.owner} of {bound.value}", param="steps")
    uses = adapters.adapters_resolve(tenant=tenant, names=[use.name for use in spec.adapters], version=version)
    project = _project(api_key, spec.project)
    tier = tier_of(version, quality=spec.quality, image_units=image_units(width=width, height=height, n=1))
    pool = routing.pool_for(version, tenant=tenant, tier=tier)
    tier = PoolTier(pool.tier or tier)
    drawn = ImageSpec(
        prompt=spec.prompt,
        width=width,
        height=height,
        steps=steps,
        seed=job_id.int % 2**31 if spec.seed is None else spec.seed,  # random bits that are there already
        n=spec.n,
        output_format=spec.output_format,
        output_compression=spec.output_compression,
    )
    key = ""
    # An experiment compares what is drawn: its requests are all drawn.
    if spec.seed is not None and spec.cache and arm is None:
        used = [(adapter, asked.scale) for adapter, asked in zip(uses, spec.adapters, strict=True)]
        key = result_key(drawn, version=version, adapters=used)
    return Plan(
        spec=spec,
        api_key=api_key,
        quotas=quotas,
        queued_jobs_max=limits.queued_jobs_max,
        project=project,
        version=version,
        arm=arm,
        pool=pool,
        tier=tier,
        uses=uses,
        drawn=drawn,
        ttl_seconds=ttl_seconds,
        prices=Prices.at(tenant=tenant, now=now),
        key=key,
        source=result_find(tenant=tenant, key=key, now=now) if key else None,
        drawing=cost_bound(version=version, pool=pool, tier=tier, width=width, height=height, steps=steps, n=spec.n),
    )


def job_admit(plan: Plan, *, job_id: UUID, request_id: str, now: datetime) -> Job:
    """Holds what a plan may cost, counts it, and writes its job, on one round trip; in the caller's transaction.

    Raises `RevisionChanged` where the plan was made by what isn't in force any more, and what the steps raise.
    """
    spec, api_key, drawn, tenant = plan.spec, plan.api_key, plan.drawn, plan.api_key.tenant
    job = Job(
        id=job_id,
        tenant=tenant,
        project=plan.project,
        api_key=api_key,
        model_version=plan.version,
        pool=plan.pool,
        arm=plan.arm,
        quality=spec.quality,
        tier=plan.tier,
        **asdict(drawn),
        result_key=plan.key,
        cached_from=plan.source,
        partial_images=spec.partial_images,
        priority=spec.priority,
        user=spec.user,
        metadata=spec.metadata,
        request_id=request_id,
        created_at=now,
        expires_at=now + timedelta(seconds=plan.ttl_seconds),
    )
    hold = hold_take(
        tenant=tenant,
        project=plan.project,
        api_key=api_key,
        amount_micros=plan.prices.max_micros(plan.most),
        reference=job_id,
        now=now,
    )
    # After the hold, as a job's end settles the hold before it gives units back: locks are taken in one order.
    if any(quota.image_units_per_month is not None or quota.concurrent_jobs_max is not None for quota in plan.quotas):
        run_pipelined(revision_validate(), hold)
        # Admissions take turns, so that none counts past the limit.
        run_pipelined(*_counted(plan, quotas_locked(api_key), now), job_insert(job))
    else:
        run_pipelined(revision_validate(), hold, *_counted(plan, plan.quotas, now), job_insert(job))
    if plan.uses:
        JobAdapter.objects.bulk_create(
            JobAdapter(job=job, position=position, adapter_version=used, scale=asked.scale)
            for position, (used, asked) in enumerate(zip(plan.uses, spec.adapters, strict=True))
        )
    return job


def _answer(job: Job, source: Job, prices: Prices, now: datetime) -> None:
    """Ends a job at once with the images of another, for the price of a request and of a cache hit."""
    result_copy(source, to=job, now=now)
    settle(
        project=job.project,
        job_id=job.id,
        quantities=_HIT,
        dimensions={**dimensions_of(job), "cached": "yes"},
        prices=prices,
        now=now,
    )
    job.state, job.finished_at = State.SUCCEEDED, now
    job.save(update_fields=["state", "finished_at"])
    job_notify(job, now=now)
    log.info("job_answered_from_cache", **names_of(job), cached_from=str(source.id))


def _assign(tenant: Tenant, spec: Spec, job_id: UUID) -> tuple[ModelVersion, Arm | None, Spec]:
    """The version that draws, the experiment's arm if the request belongs to one, and the request as that has it.

    A caller is the tenant's `user`. Requests that name none are one caller of a model, so that a tenant sees one
    version; for an experiment, which needs many callers, each is its own.
    """
    model = routing.model_get(spec.model)
    arm = arm_for(
        tenant=tenant,
        model=model,
        caller=spec.user or str(job_id),
        names_adapters=bool(spec.adapters),
        names_steps=spec.steps is not None or spec.quality == Quality.LOW,
    )
    version = (arm and arm.version) or routing.version_for(model, caller=f"{tenant.id}/{spec.user}")
    if arm is not None:
        uses = tuple(RequestedAdapter(**use) for use in arm.adapters)
        spec = replace(spec, adapters=uses or spec.adapters, steps=spec.steps if arm.steps is None else arm.steps)
    return version, arm, spec


def _counted(plan: Plan, quotas: list[Quota], now: datetime) -> list[PipelinedQuery[None]]:
    """What counts a plan towards its quotas. Raises `ConcurrencyExceeded`."""
    api_key = plan.api_key
    for quota in quotas:
        if quota.concurrent_jobs_max is None:
            continue
        unfinished = Job.objects.filter(tenant=api_key.tenant_id, finished_at=None)
        if quota.api_key_id is not None:
            unfinished = unfinished.filter(api_key=api_key)
        if unfinished.count() >= quota.concurrent_jobs_max:
            raise ConcurrencyExceeded(limit=quota.concurrent_jobs_max, owner=owner_of(quota))
    units = image_units(width=plan.drawn.width, height=plan.drawn.height, n=plan.drawn.n)
    counts = [units_take(api_key=api_key, quotas=quotas, image_units=units, now=now)]
    if plan.source is None:  # an answer from the cache never waits
        counts.append(queue_check(api_key=api_key, quotas=quotas, queued_jobs_max=plan.queued_jobs_max, now=now))
    return counts


def check_prompt(prompt: str, *, chars_max: int) -> None:
    """Raises `PromptInvalid` for a prompt that is blank, too long, or holds characters no model reads."""
    if not prompt.strip():
        raise PromptInvalid("the prompt is empty: say what to draw", param="prompt")
    if len(prompt) > chars_max:
        raise PromptInvalid(f"the prompt has {len(prompt)} characters; the limit is {chars_max}", param="prompt")
    if found := _UNUSABLE.search(prompt):
        raise PromptInvalid(
            f"the prompt holds the character U+{ord(found[0]):04X} at {found.start()}, which is no text",
            param="prompt",
        )


def parse_size(size: str, *, version: ModelVersion, quotas: list[Quota]) -> tuple[int, int]:
    """Width and height in pixels. Raises `SizeInvalid` with what would be allowed."""
    found = _SIZE.fullmatch(version.size_default if size == "auto" else size)
    if not found:
        raise SizeInvalid(f'size is "auto" or WIDTHxHEIGHT, for example {version.size_default}', param="size")
    width, height = int(found[1]), int(found[2])
    if width % SIZE_MULTIPLE or height % SIZE_MULTIPLE:
        raise SizeInvalid(f"width and height are multiples of {SIZE_MULTIPLE}", param="size")
    if min(width, height) < version.side_min or max(width, height) > version.side_max:
        raise SizeInvalid(
            f"{version.model.name} draws sides of {version.side_min} to {version.side_max} pixels",
            param="size",
        )
    if max(width, height) > ASPECT_MAX * min(width, height):
        raise SizeInvalid(f"the longer side is at most {ASPECT_MAX} times the shorter", param="size")
    if (bound := tightest(quotas, "pixels_max")) and width * height > bound.value:
        raise SizeInvalid(
            f"{width}x{height} is {width * height} pixels, more than {bound.owner} of {bound.value}", param="size"
        )
    return width, height


def image_units(*, width: int, height: int, n: int) -> Decimal:
    """The resolution weight of `n` images: 512x512 is 1, 1024x1024 is 4."""
    return Decimal(width * height * n) / 512**2


def cost_bound(
    *, version: ModelVersion, pool: Pool, tier: PoolTier, width: int, height: int, steps: int, n: int
) -> list[Quantity]:
    """The most that a request can be charged for: its units exactly, its GPU seconds by the version's bound."""
    units = image_units(width=width, height=height, n=n)
    gpu_seconds = units * steps * version.gpu_seconds_bound
    quantities = (
        Quantity(meter=Meter.GPU_SECOND, amount=gpu_seconds, gpu_class=pool.gpu_class),
        Quantity(meter=Meter.IMAGE_UNIT, amount=units),
        _REQUEST,
    )
    return _named(quantities, version, tier)


def _named(quantities: Iterable[Quantity], version: ModelVersion, tier: PoolTier) -> list[Quantity]:
    """With what else chooses their rates, as `settle` finds it in the dimensions of the job."""
    return [replace(quantity, model=version.model.name, tier=tier) for quantity in quantities]


def _lifetime(spec: Spec, limits: Limits) -> int:
    """Seconds from a job's admission until it expires. Raises `DeadlineInvalid`."""
    wanted = limits.job_ttl_seconds if spec.expires_in_seconds is None else spec.expires_in_seconds
    if not 1 <= wanted <= limits.job_ttl_seconds:
        raise DeadlineInvalid(f"a job has 1 to {limits.job_ttl_seconds} seconds", param="expires_in_seconds")
    return wanted


def _project(api_key: ApiKey, slug: str | None) -> Project:
    if slug is None:
        return api_key.project
    project = Project.objects.filter(tenant=api_key.tenant, slug=slug).first()
    if project is None:
        raise ProjectNotFound(f"there is no project {slug!r} in this account", param="project")
    return project
