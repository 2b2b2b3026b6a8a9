"""Decides what a request would do: its model version, pool, images, price, and whether cached images answer it.

Planning reads and never writes. Nearly all of its reads are cached by the revision of the configuration
(`core/revision.py`), so a plan usually takes no round trip; `job_admit` validates the revision.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from billing.models import Meter
from billing.pricing.rating import Prices, Quantity
from core.image_units import image_units
from easel.catalog.adapters import adapters_resolve
from easel.catalog.models import AdapterVersion, ModelVersion, Pool, PoolTier
from easel.config import Config
from easel.jobs.errors import ProjectNotFound
from easel.jobs.models import Job
from easel.jobs.moderation import prompt_moderate
from easel.jobs.policy import prompt_check
from easel.jobs.readings import prompt_clean
from easel.jobs.result_cache import result_find, result_key
from easel.jobs.sizes import size_parse
from easel.jobs.spec import (
    ImageSpec,
    RequestedAdapter,
    Spec,
    prompt_validate,
    steps_choose,
    ttl_seconds_choose,
)
from easel.serving import routing
from easel.serving.experiments import arm_for
from easel.serving.models import Arm
from easel.serving.tiers import Quality, tier_of
from tenants.models import ApiKey, Moderation, Project, Quota, Tenant
from tenants.quotas import quotas_of

CACHE_HIT = (Quantity(meter=Meter.REQUEST, amount=Decimal(1)), Quantity(meter=Meter.CACHE_HIT, amount=Decimal(1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A request that passed its checks, with everything that its job will be written from."""

    spec: Spec
    api_key: ApiKey
    quotas: list[Quota]
    queued_jobs_max: int
    project: Project
    version: ModelVersion
    arm: Arm | None
    pool: Pool
    tier: PoolTier
    adapters: list[AdapterVersion]
    image_spec: ImageSpec
    image_units: Decimal
    expires_at: datetime
    in_batch: bool
    prices: Prices
    result_key: str  # empty if the images are not looked up in the result cache
    cached_from: Job | None  # the job whose images answer this request

    @property
    def quantities_max(self) -> list[Quantity]:
        """The upper bound of what the job is charged for.

        The image units are exact; the GPU seconds are the bound that the model version sets per image unit and step.
        """
        # `settle` takes the model and tier, which select a rate, from the job's dimensions.
        rate: dict[str, Any] = {"model": self.version.model.name, "tier": self.tier}
        if self.cached_from is not None:
            return [replace(quantity, **rate) for quantity in CACHE_HIT]
        gpu_seconds = self.image_units * self.image_spec.steps * self.version.gpu_seconds_bound
        return [
            Quantity(meter=Meter.GPU_SECOND, amount=gpu_seconds, gpu_class=self.pool.gpu_class, **rate),
            Quantity(meter=Meter.IMAGE_UNIT, amount=self.image_units, **rate),
            Quantity(meter=Meter.REQUEST, amount=Decimal(1), **rate),
        ]

    def job(self, *, job_id: UUID, request_id: str, now: datetime) -> Job:
        """Return the job that the plan describes, not yet written."""
        images = self.image_spec
        return Job(
            id=job_id,
            tenant=self.api_key.tenant,
            project=self.project,
            api_key=self.api_key,
            model_version=self.version,
            pool=self.pool,
            arm=self.arm,
            quality=self.spec.quality,
            tier=self.tier,
            prompt=images.prompt,
            width=images.width,
            height=images.height,
            steps=images.steps,
            seed=images.seed,
            n=images.n,
            output_format=images.output_format,
            output_compression=images.output_compression,
            result_key=self.result_key,
            cached_from=self.cached_from,
            partial_images=self.spec.partial_images,
            priority=self.spec.priority,
            in_batch=self.in_batch,
            user=self.spec.user,
            metadata=self.spec.metadata,
            warnings=list(self.spec.warnings),
            request_id=request_id,
            created_at=now,
            expires_at=self.expires_at,
        )


def job_plan(
    *, api_key: ApiKey, spec: Spec, config: Config, job_id: UUID, batch_until: datetime | None = None, now: datetime
) -> Plan:
    """Check a request and return its plan. Raise a `DomainError` that names the field at fault.

    A line of a batch has the prices of batches, and expires with its batch, at `batch_until`.
    """
    tenant = api_key.tenant
    spec = replace(spec, prompt=prompt_clean(spec.prompt))
    prompt_validate(spec.prompt, chars_max=config.prompt_chars_max)
    prompt_check(spec.prompt, tenant=tenant)
    prompt_moderate(spec.prompt, tenant=tenant)
    if tenant.moderation == Moderation.ALL:
        spec = replace(spec, partial_images=0)  # nobody has judged them
    quotas = quotas_of(api_key)
    ttl_seconds = ttl_seconds_choose(spec, seconds_max=config.job_ttl_seconds)
    version, arm, spec = _assign(tenant, spec, job_id)
    width, height = size_parse(spec.size, version=version, quotas=quotas)
    steps = steps_choose(spec, version=version, quotas=quotas)
    names = [asked.name for asked in spec.adapters]
    adapters = adapters_resolve(tenant=tenant, names=names, version=version) if names else []
    project = api_key.project if spec.project is None else _project(tenant, spec.project)
    tier = tier_of(version, quality=spec.quality, image_units=image_units(width=width, height=height, n=1))
    pool = routing.pool_for(version, tenant=tenant, tier=tier)
    tier = PoolTier(pool.tier or tier)
    image_spec = ImageSpec(
        prompt=spec.prompt,
        width=width,
        height=height,
        steps=steps,
        # The job's id is random already: taking the seed from its bits saves a system call.
        seed=job_id.int % 2**31 if spec.seed is None else spec.seed,
        n=spec.n,
        output_format=spec.output_format,
        output_compression=spec.output_compression,
    )
    # A request of an experiment is always generated: the experiment compares what its arms generate.
    is_cacheable = spec.seed is not None and spec.cache and arm is None
    scales = [(adapter, asked.scale) for adapter, asked in zip(adapters, spec.adapters, strict=True)]
    key = result_key(image_spec, version=version, adapters=scales, tenant=tenant) if is_cacheable else ""
    return Plan(
        spec=spec,
        api_key=api_key,
        quotas=quotas,
        queued_jobs_max=config.queued_jobs_max,
        project=project,
        version=version,
        arm=arm,
        pool=pool,
        tier=tier,
        adapters=adapters,
        image_spec=image_spec,
        image_units=image_units(width=width, height=height, n=spec.n),
        expires_at=batch_until or now + timedelta(seconds=ttl_seconds),
        in_batch=batch_until is not None,
        prices=Prices.in_force(tenant=tenant, now=now, in_batch=batch_until is not None),
        result_key=key,
        cached_from=result_find(tenant=tenant, key=key) if key else None,
    )


def _assign(tenant: Tenant, spec: Spec, job_id: UUID) -> tuple[ModelVersion, Arm | None, Spec]:
    """Return the model version that serves a request, the experiment's arm if it belongs to one, and the request as
    changed by that arm.

    Routing takes the tenant's `user` as the caller. All requests without a `user` count as one caller, so that the
    tenant sees one version. An experiment needs many callers, so there each request without a `user` is its own.
    """
    model = routing.model_get(spec.model, tenant=tenant)
    arm = arm_for(
        tenant=tenant,
        model=model,
        caller=spec.user or str(job_id),
        names_adapters=bool(spec.adapters),
        names_steps=spec.steps is not None or spec.quality == Quality.LOW,
    )
    version = (arm and arm.version) or routing.version_for(model, caller=f"{tenant.id}/{spec.user}")
    if arm is not None:
        adapters = tuple(RequestedAdapter(**fields) for fields in arm.adapters)
        spec = replace(spec, adapters=adapters or spec.adapters, steps=spec.steps if arm.steps is None else arm.steps)
    return version, arm, spec


def _project(tenant: Tenant, slug: str) -> Project:
    project = Project.objects.filter(tenant=tenant, slug=slug).first()
    if project is None:
        raise ProjectNotFound(f"there is no project {slug!r} in this account", param="project")
    return project
