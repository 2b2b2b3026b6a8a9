"""Pools of workers, models and their versions, tenants' LoRA adapters and their versions."""

import uuid

from django.db import models
from django.db.models import Q

from tenants.models import SLUG, Tenant


class Precision(models.TextChoices):
    """Number format of a worker's weights."""

    NONE = "none", "unquantised, as in the checkpoint"
    INT8 = "int8", "8-bit integers"
    FP8 = "fp8", "8-bit floats"


class PoolTier(models.TextChoices):
    """Requests that a pool is for."""

    FAST = "fast", "small images and low quality"
    HD = "hd", "large images and high quality"


class Pool(models.Model):
    """A set of identical workers with a Redis namespace of its own.

    A dedicated pool (with a `tenant`) and a tier's pool (with a `tier`) hold a `checkpoint` at a `precision` and take
    the jobs of every version with those weights: all jobs of the tenant, or those of the tier. A shared pool has
    neither and serves the versions that name it.
    """

    slug = models.CharField(max_length=40, unique=True)
    namespace = models.CharField(max_length=60, unique=True, help_text="Prefix of all Redis keys of the pool.")
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, null=True, blank=True, related_name="pools")
    tier = models.CharField(
        max_length=4, choices=PoolTier, blank=True, db_default="", help_text="Empty for shared and dedicated pools."
    )
    checkpoint = models.CharField(max_length=500, blank=True, help_text="Weights of a dedicated or a tier's pool.")
    precision = models.CharField(max_length=10, choices=Precision, default=Precision.NONE)
    gpu_class = models.CharField(max_length=40)
    gpu_hour_cost = models.DecimalField(
        max_digits=12, decimal_places=6, default=0, help_text="The provider's price of one GPU hour, in USD."
    )
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(slug__regex=SLUG), name="pool_slug_is_dns_label"),
            models.CheckConstraint(condition=Q(gpu_hour_cost__gte=0), name="pool_cost_not_negative"),
            models.CheckConstraint(
                condition=Q(tenant__isnull=True, tier="", checkpoint="")
                | (Q(tenant__isnull=False, tier="") | Q(tenant__isnull=True, tier__in=PoolTier.values))
                & ~Q(checkpoint=""),
                name="pool_checkpoint_iff_dedicated_or_of_a_tier",
            ),
            models.UniqueConstraint(
                fields=["checkpoint", "precision", "tier"], condition=~Q(tier=""), name="pool_one_per_weights_and_tier"
            ),
            models.CheckConstraint(condition=Q(precision__in=Precision.values), name="pool_precision_known"),
            models.UniqueConstraint(fields=["tenant"], name="pool_one_per_tenant"),
        ]

    def __str__(self) -> str:
        return self.slug


class Worker(models.Model):
    """A worker process, as its latest beat describes it; the seconds are totals since it started."""

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="workers")
    name = models.CharField(max_length=100)
    gpu_class = models.CharField(max_length=40)
    concurrency = models.PositiveIntegerField(help_text="Attempts that the worker runs at once.")
    model_version = models.CharField(max_length=200)
    started_at = models.DateTimeField()
    beat_at = models.DateTimeField()
    busy_seconds = models.FloatField()
    attributed_seconds = models.FloatField()
    load_seconds = models.FloatField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["pool", "name"], name="worker_name_unique_in_pool")]


class PoolOutage(models.Model):
    """A time in which a pool had no live worker, written when the next worker reported. Outages may overlap."""

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="outages")
    began_at = models.DateTimeField()
    ended_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(began_at__lt=models.F("ended_at")), name="outage_begins_before_it_ends")
        ]
        indexes = [models.Index(fields=["pool", "ended_at"], name="outage_by_pool")]


class PoolFault(models.Model):
    """Faults of one kind that a pool's workers caused in Redis: their number and the latest of them."""

    class Kind(models.TextChoices):
        KEY = "key", "a key that could not be used"
        REPORT = "report", "reports that could not be applied"
        SEND = "send", "tasks that could not be sent"
        MEMORY = "memory", "too much memory of Redis"
        CONNECTIONS = "connections", "too many connections to Redis"

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="faults")
    kind = models.CharField(max_length=20, choices=Kind)
    count = models.BigIntegerField(default=0)
    detail = models.CharField(max_length=200, default="")
    last_at = models.DateTimeField()
    shut_until = models.DateTimeField(null=True, help_text="Until then the pool's login of Redis is off.")
    shut_seconds = models.PositiveIntegerField(default=0, help_text="Length of the latest time that it was off.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["pool", "kind"], name="pool_fault_one_per_kind")]


class WorkerDay(models.Model):
    """Totals of a pool's workers of one name on one day (UTC). Idle time is `up_seconds` less busy and load seconds."""

    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="worker_days")
    worker = models.CharField(max_length=100)
    day = models.DateField()
    gpu_class = models.CharField(max_length=40)
    up_seconds = models.FloatField(default=0)
    metered_seconds = models.FloatField(default=0, help_text="Metered part of a dedicated pool's up_seconds.")
    busy_seconds = models.FloatField(default=0)
    attributed_seconds = models.FloatField(default=0)
    load_seconds = models.FloatField(default=0)
    cost = models.DecimalField(
        max_digits=24,
        decimal_places=15,
        default=0,
        help_text="Cost of the up time in USD, at the pool's cost of that moment.",
    )

    class Meta:
        constraints = [models.UniqueConstraint(fields=["pool", "worker", "day"], name="worker_day_unique")]


class Model(models.Model):
    """A name that requests use; its routes (`easel.serving`) say which versions serve what share of the callers."""

    name = models.CharField(max_length=100, unique=True)
    is_default = models.BooleanField(default=False, help_text="Serves requests that name no model.")
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["is_default"], condition=Q(is_default=True), name="model_one_default")
        ]

    def __str__(self) -> str:
        return self.name


def version_label(model_name: str, number: int) -> str:
    return f"{model_name}@{number}"


class ModelVersion(models.Model):
    """A checkpoint with a precision, limits and defaults; `pool` serves it unless another pool holds its weights."""

    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    checkpoint = models.CharField(max_length=500, help_text="A folder or a Hugging Face id, in diffusers' layout.")
    precision = models.CharField(max_length=10, choices=Precision, default=Precision.NONE)
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="model_versions")
    steps_default = models.PositiveSmallIntegerField(default=8)
    steps_max = models.PositiveSmallIntegerField(default=50)
    side_min = models.PositiveIntegerField(help_text="Minimum of width and height in pixels.")
    side_max = models.PositiveIntegerField(help_text="Maximum of width and height in pixels.")
    size_default = models.CharField(max_length=11)
    fast_image_units_max = models.DecimalField(
        max_digits=9, decimal_places=4, help_text="Largest image of the fast tier, if quality names no tier."
    )
    gpu_seconds_bound = models.DecimalField(
        max_digits=12,
        decimal_places=6,
        help_text="Upper bound of GPU seconds per image unit and step; holds are priced by it.",
    )
    lora_targets = models.JSONField(help_text="Shapes [out, in] of the modules that an adapter may change.")
    created_at = models.DateTimeField()
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["model", "number"], name="model_version_number_unique"),
            models.CheckConstraint(
                condition=Q(steps_default__gte=1, steps_default__lte=models.F("steps_max")), name="steps_in_range"
            ),
            models.CheckConstraint(condition=Q(side_min__lte=models.F("side_max")), name="sides_in_order"),
            models.CheckConstraint(condition=Q(precision__in=Precision.values), name="version_precision_known"),
        ]

    def __str__(self) -> str:
        return self.label

    @property
    def label(self) -> str:
        """`name@number`, the version's name in logs and usage records."""
        return version_label(self.model.name, self.number)


class Adapter(models.Model):
    """A tenant's LoRA adapter; requests use its newest version."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="adapters")
    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="adapters")
    name = models.CharField(max_length=40)
    created_at = models.DateTimeField()
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], name="adapter_name_unique_in_tenant"),
            models.CheckConstraint(condition=Q(name__regex=SLUG), name="adapter_name_is_dns_label"),
        ]

    def __str__(self) -> str:
        return self.name


class AdapterVersion(models.Model):
    """An adapter's weights in canonical form; the storage key is derived from their hash."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    adapter = models.ForeignKey(Adapter, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    upload_sha256 = models.CharField(max_length=64, help_text="Hash of the uploaded file.")
    sha256 = models.CharField(max_length=64, help_text="Hash of the canonical file.")
    size_bytes = models.BigIntegerField()
    rank_max = models.PositiveIntegerField()
    modules = models.PositiveIntegerField(help_text="Number of modules that the adapter changes.")
    storage_key = models.CharField(max_length=300)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["adapter", "number"], name="adapter_version_number_unique"),
            models.UniqueConstraint(fields=["adapter", "upload_sha256"], name="adapter_version_content_unique"),
        ]
