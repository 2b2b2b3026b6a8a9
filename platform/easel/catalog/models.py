"""What can be called: pools of workers, models and their versions, tenants' LoRA adapters and their versions."""

import uuid

from django.db import models
from django.db.models import Q

from tenants.models import SLUG, Tenant


class Precision(models.TextChoices):
    """How a worker keeps the weights."""

    NONE = "none", "as the checkpoint is"
    INT8 = "int8", "integers of eight bits"
    FP8 = "fp8", "floats of eight bits"


class PoolTier(models.TextChoices):
    """What a pool is for."""

    FAST = "fast", "small images and low quality"
    HD = "hd", "large images and high quality"


class Pool(models.Model):
    """A set of identical workers with a Redis namespace of its own.

    One that holds a `checkpoint` at a `precision` takes the jobs of every version with those weights: a dedicated one
    all of its `tenant`, one of a tier those of its `tier`. The others serve the versions that name them.
    """

    slug = models.CharField(max_length=40, unique=True)
    namespace = models.CharField(max_length=60, unique=True, help_text="Prefix of every Redis key of the pool.")
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, null=True, blank=True, related_name="pools")
    tier = models.CharField(
        max_length=4, choices=PoolTier, blank=True, db_default="", help_text="Empty: what no other pool is for."
    )
    checkpoint = models.CharField(
        max_length=500, blank=True, help_text="What the workers of a dedicated pool, or one of a tier, hold."
    )
    precision = models.CharField(max_length=10, choices=Precision, default=Precision.NONE)
    gpu_class = models.CharField(max_length=40)
    gpu_hour_cost = models.DecimalField(
        max_digits=12, decimal_places=6, default=0, help_text="What the provider asks for an hour of one GPU, in USD."
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
    """A worker process as its beats describe it; the seconds are totals since it started."""

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="workers")
    name = models.CharField(max_length=100)
    gpu_class = models.CharField(max_length=40)
    concurrency = models.PositiveIntegerField(help_text="Attempts that it runs at a time.")
    model_version = models.CharField(max_length=200)
    started_at = models.DateTimeField()
    beat_at = models.DateTimeField()
    busy_seconds = models.FloatField()
    attributed_seconds = models.FloatField()
    load_seconds = models.FloatField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["pool", "name"], name="worker_name_unique_in_pool")]


class WorkerDay(models.Model):
    """What a pool's workers of one name did on one day (UTC), added up from beat to beat: idle is up less the rest."""

    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="worker_days")
    worker = models.CharField(max_length=100)
    day = models.DateField()
    gpu_class = models.CharField(max_length=40)
    up_seconds = models.FloatField(default=0)
    metered_seconds = models.FloatField(default=0, help_text="Of a dedicated pool's up_seconds, what is metered.")
    busy_seconds = models.FloatField(default=0)
    attributed_seconds = models.FloatField(default=0)
    load_seconds = models.FloatField(default=0)
    cost = models.DecimalField(
        max_digits=24,
        decimal_places=15,
        default=0,
        help_text="Of the time up, in USD, at what the pool cost while it passed.",
    )

    class Meta:
        constraints = [models.UniqueConstraint(fields=["pool", "worker", "day"], name="worker_day_unique")]


class Model(models.Model):
    """An alias that requests call; its routes say which versions serve it, and how much of it each."""

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
    """A checkpoint with its precision, limits and defaults, served by one pool."""

    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    checkpoint = models.CharField(max_length=500, help_text="A folder or a hub id, in diffusers' layout.")
    precision = models.CharField(max_length=10, choices=Precision, default=Precision.NONE)
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="model_versions")
    steps_default = models.PositiveSmallIntegerField(default=8)
    steps_max = models.PositiveSmallIntegerField(default=50)
    side_min = models.PositiveIntegerField(help_text="Least width and height in pixels.")
    side_max = models.PositiveIntegerField(help_text="Greatest width and height in pixels.")
    size_default = models.CharField(max_length=11)
    fast_image_units_max = models.DecimalField(
        max_digits=9, decimal_places=4, help_text="The largest image that is of the fast tier, unless quality says so."
    )
    gpu_seconds_bound = models.DecimalField(
        max_digits=12,
        decimal_places=6,
        help_text="GPU seconds that one image unit may take per step at most; what holds are priced by.",
    )
    lora_targets = models.JSONField(help_text="Shape [out, in] of each module that an adapter may change.")
    created_at = models.DateTimeField()
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["model", "number"], name="model_version_number_unique"),
            models.CheckConstraint(
                condition=Q(steps_default__gte=1, steps_default__lte=models.F("steps_max")),
                name="steps_in_range",
            ),
            models.CheckConstraint(condition=Q(side_min__lte=models.F("side_max")), name="sides_in_order"),
            models.CheckConstraint(condition=Q(precision__in=Precision.values), name="version_precision_known"),
        ]

    def __str__(self) -> str:
        return self.label

    @property
    def label(self) -> str:
        """`name@number`, as logs and usage records name it."""
        return version_label(self.model.name, self.number)


class Adapter(models.Model):
    """A tenant's LoRA under a name; requests use its newest version."""

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
    """An adapter's weights as they are served, in canonical form and named by their content."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    adapter = models.ForeignKey(Adapter, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    upload_sha256 = models.CharField(max_length=64, help_text="Of the file as it was uploaded.")
    sha256 = models.CharField(max_length=64, help_text="Of the canonical file.")
    size_bytes = models.BigIntegerField()
    rank_max = models.PositiveIntegerField()
    modules = models.PositiveIntegerField(help_text="How many modules it changes.")
    storage_key = models.CharField(max_length=300)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["adapter", "number"], name="adapter_version_number_unique"),
            models.UniqueConstraint(fields=["adapter", "upload_sha256"], name="adapter_version_content_unique"),
        ]
