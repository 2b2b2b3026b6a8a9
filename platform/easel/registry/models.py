"""What can be called: pools of workers, models and their versions, tenants' LoRA adapters and their versions."""

import uuid

from django.db import models
from django.db.models import Q

from tenants.models import SLUG, Tenant


class Pool(models.Model):
    """A set of identical workers with a Redis namespace of its own; `tenant` owns a dedicated one."""

    slug = models.CharField(max_length=40, unique=True)
    namespace = models.CharField(max_length=60, unique=True, help_text="Prefix of every Redis key of the pool.")
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, null=True, blank=True, related_name="pools")
    gpu_class = models.CharField(max_length=40)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(slug__regex=SLUG), name="pool_slug_is_dns_label")]

    def __str__(self) -> str:
        return self.slug


class Worker(models.Model):
    """A worker process as its beats describe it; the seconds are totals since it started."""

    pool = models.ForeignKey(Pool, on_delete=models.CASCADE, related_name="workers")
    name = models.CharField(max_length=100)
    gpu_class = models.CharField(max_length=40)
    slots = models.PositiveIntegerField(help_text="Attempts it takes at once.")
    model_version = models.CharField(max_length=200)
    started_at = models.DateTimeField()
    beat_at = models.DateTimeField()
    busy_seconds = models.FloatField()
    attributed_seconds = models.FloatField()
    load_seconds = models.FloatField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["pool", "name"], name="worker_name_unique_in_pool")]


class Model(models.Model):
    """A name that requests call, routed to one of its versions."""

    name = models.CharField(max_length=100, unique=True)
    is_default = models.BooleanField(default=False, help_text="Serves requests that name no model.")
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["is_default"], condition=Q(is_default=True), name="model_one_default")
        ]

    def __str__(self) -> str:
        return self.name


class ModelVersion(models.Model):
    """A checkpoint with its limits and defaults, served by one pool; the newest live one serves its model."""

    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    checkpoint = models.CharField(max_length=500, help_text="A folder or a hub id, in diffusers' layout.")
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, related_name="model_versions")
    steps_default = models.PositiveSmallIntegerField(default=8)
    steps_max = models.PositiveSmallIntegerField(default=50)
    side_min = models.PositiveIntegerField(help_text="Least width and height in pixels.")
    side_max = models.PositiveIntegerField(help_text="Greatest width and height in pixels.")
    size_default = models.CharField(max_length=11)
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
        ]

    @property
    def label(self) -> str:
        """`name@number`, as logs and usage records name it."""
        return f"{self.model.name}@{self.number}"


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
