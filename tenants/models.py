"""Tenants, their projects and API keys, quotas and block lists."""

import uuid
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.models import CASCADE, PROTECT, CheckConstraint, F, Q, TextField, UniqueConstraint
from django.db.models.functions import Cast
from django.db.models.lookups import Regex

from core.origins import ORIGIN
from tenants.addresses import NETWORKS_MAX

# A DNS label of at most 40 characters: the slug becomes a Kubernetes namespace (`easel-t-<slug>`), a Redis key
# prefix, an object-store prefix and a metric label.
SLUG = r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"
RETENTION_DAYS_MAX = 3650  # maximum of a tenant's retention
ORIGINS_MAX = 20  # origins of a tenant
# Long enough to load a page and to try again, short enough for a bucket, whose URLs nothing but time ends.
IMAGE_URL_MINUTES = 15
IMAGE_URL_MINUTES_MAX = 24 * 60


class ListedModels(models.TextChoices):
    """The names that a tenant's list of models shows."""

    MODELS = "models", "models alone"
    ALIASES = "aliases", "aliases alone"
    ALL = "all", "models and aliases"


class Moderation(models.TextChoices):
    """The parts of a tenant's requests that the platform's classifier judges."""

    OFF = "off", "nothing"
    PROMPTS = "prompts", "prompts"
    ALL = "all", "prompts and images"


class Tenant(models.Model):
    """A customer: the owner of everything that is not the platform's."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    slug = models.CharField(max_length=40, unique=True)
    name = models.CharField(max_length=200)
    currency = models.CharField(max_length=3, default="USD")
    running_jobs_max = models.PositiveIntegerField(
        null=True, blank=True, help_text="Maximum of jobs on workers at once; further jobs wait."
    )
    fair_share_weight = models.PositiveSmallIntegerField(
        default=1, help_text="Share of a busy pool, relative to the other tenants waiting for it."
    )
    output_days = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="Days to retain images; empty: the platform's."
    )
    job_days = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="Days to retain a job's texts; empty: the platform's."
    )
    image_url_minutes = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="Minutes that the URL of an image is valid; empty: the platform's 15."
    )
    # As browsers write them. The default of the database serves a running version that does not know the column.
    origins = ArrayField(
        models.CharField(max_length=300),
        default=list,
        db_default=[],
        blank=True,
        help_text="Web origins whose pages may call the API with this tenant's keys.",
    )
    listed_models = models.CharField(
        max_length=7,
        choices=ListedModels,
        default=ListedModels.ALL,
        db_default=ListedModels.ALL,
        help_text="The names that GET /v1/models lists; requests may give the others too.",
    )
    moderation = models.CharField(
        max_length=7,
        choices=Moderation,
        default=Moderation.OFF,
        db_default=Moderation.OFF,
        help_text="What the classifier judges (EASEL_MODERATION_URL).",
    )
    moderation_categories = ArrayField(
        models.CharField(max_length=100),
        default=list,
        db_default=[],
        blank=True,
        help_text="Categories that are refused, as violence or violence=0.4; without one: whatever is flagged.",
    )
    # Distinguishes callers of an experiment after their names are deleted; deleted when the tenant is erased.
    caller_salt = models.UUIDField(null=True, editable=False, db_default=RandomUUID())
    suspended_at = models.DateTimeField(null=True, blank=True)
    erase_requested_at = models.DateTimeField(null=True, blank=True)
    erased_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            CheckConstraint(
                condition=Q(output_days__gte=1, output_days__lte=RETENTION_DAYS_MAX), name="tenant_output_days_in_range"
            ),
            CheckConstraint(
                condition=Q(job_days__gte=1, job_days__lte=RETENTION_DAYS_MAX), name="tenant_job_days_in_range"
            ),
            CheckConstraint(condition=Q(output_days__lte=F("job_days")), name="tenant_images_go_before_their_jobs"),
            CheckConstraint(
                condition=Q(image_url_minutes__gte=1, image_url_minutes__lte=IMAGE_URL_MINUTES_MAX),
                name="tenant_image_url_minutes_in_range",
            ),
            CheckConstraint(
                condition=Q(erase_requested_at=None) | Q(suspended_at__isnull=False),
                name="tenant_suspended_before_erased",
            ),
            CheckConstraint(
                condition=Q(erased_at=None) | Q(erase_requested_at__isnull=False, caller_salt=None, name=""),
                name="tenant_erased_has_no_name",
            ),
            CheckConstraint(
                condition=Regex(
                    Cast("origins", TextField()),  # which quotes texts that could be taken for two, and empty ones
                    rf"^\{{({ORIGIN}(,{ORIGIN})*)?\}}$",
                ),
                name="tenant_origins_are_origins",
            ),
            CheckConstraint(condition=Q(origins__len__lte=ORIGINS_MAX), name="tenant_has_few_origins"),
            CheckConstraint(condition=Q(slug__regex=SLUG), name="tenant_slug_is_dns_label"),
            CheckConstraint(condition=Q(currency__regex=r"^[A-Z]{3}$"), name="tenant_currency_is_iso_4217"),
            CheckConstraint(condition=Q(fair_share_weight__gte=1), name="tenant_weight_is_positive"),
            CheckConstraint(condition=Q(listed_models__in=ListedModels.values), name="tenant_listed_models_known"),
            CheckConstraint(condition=Q(moderation__in=Moderation.values), name="tenant_moderation_known"),
            CheckConstraint(condition=Q(running_jobs_max__gte=1), name="tenant_running_jobs_positive"),
        ]

    def __str__(self) -> str:
        return self.slug


def image_url_minutes(tenant: Tenant) -> int:
    """Return how long URLs of a tenant's images are valid: by its own policy, or the platform's."""
    return tenant.image_url_minutes or IMAGE_URL_MINUTES


class Project(models.Model):
    """The unit of cost allocation inside a tenant; `labels` (`{"department": "design"}`) group reports."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tenant = models.ForeignKey(Tenant, on_delete=PROTECT, related_name="projects")
    slug = models.CharField(max_length=40)
    labels = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            UniqueConstraint(fields=["tenant", "slug"], name="project_slug_unique_in_tenant"),
            CheckConstraint(condition=Q(slug__regex=SLUG), name="project_slug_is_dns_label"),
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id}/{self.slug}"


class Scope(models.TextChoices):
    """A permission of a key."""

    READ = "read", "read everything of the account, and change nothing"
    GENERATE = "generate", "create, read and cancel jobs"
    ADAPTERS = "adapters", "upload, read and retire adapters"
    USAGE = "usage", "read usage and cost"
    BILLING = "billing", "set and remove budgets"
    WEBHOOKS = "webhooks", "make, change and read webhooks"


class Network(models.CharField):  # type: ignore[type-arg]  # it takes none at run time
    """A network of IPv4 or IPv6, which PostgreSQL checks."""

    def db_type(self, connection: Any) -> str:
        return "cidr"


class ApiKey(models.Model):
    """A credential `easel_sk_<key_id>_<secret>`, of which only a keyed hash of the secret is stored."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    key_id = models.CharField(max_length=16, unique=True, help_text="The public part of the key, which is safe to log.")
    secret_hash = models.BinaryField(max_length=32)
    tenant = models.ForeignKey(Tenant, on_delete=PROTECT, related_name="api_keys")
    project = models.ForeignKey(Project, on_delete=PROTECT, related_name="api_keys")
    name = models.CharField(max_length=100, blank=True)
    scopes = ArrayField(models.CharField(max_length=20, choices=Scope))
    is_lenient = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Fields of a request that Easel doesn't know or can't obey are ignored with a warning, not refused.",
    )
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Refused from then on; empty: it never expires.")
    # The default of the database serves a running version that does not know the column.
    addresses = ArrayField(
        Network(max_length=49),
        default=list,
        db_default=[],
        blank=True,
        help_text="Networks from which the key may be used; empty: from everywhere.",
    )
    created_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    successor = models.OneToOneField(
        "self", on_delete=models.SET_NULL, null=True, editable=False, related_name="predecessor"
    )
    # The key without predecessor from which this one was rotated, once or more often. It never changes (a trigger), so
    # a request that began before a rotation counts in the same place as one that begins after it.
    first_key = models.ForeignKey("self", on_delete=PROTECT, null=True, editable=False, related_name="+")

    class Meta:
        verbose_name = "API key"
        constraints = [
            CheckConstraint(condition=Q(expires_at__gt=F("created_at")), name="api_key_expires_after_it_was_made"),
            CheckConstraint(condition=Q(addresses__len__lte=NETWORKS_MAX), name="api_key_has_few_addresses"),
        ]

    def __str__(self) -> str:
        return f"easel_sk_{self.key_id}_…"

    @property
    def family_id(self) -> uuid.UUID:
        """The id of the first key of its family: of all keys that were rotated from that one.

        What limits and budgets of keys count is counted by family, so that a rotation sets nothing back to zero.
        """
        return self.first_key_id or self.pk


class Quota(models.Model):
    """Limits of a tenant or of one of its keys. An empty field sets no limit, 0 allows nothing."""

    tenant = models.ForeignKey(Tenant, on_delete=CASCADE, related_name="quotas")
    api_key = models.OneToOneField(ApiKey, on_delete=CASCADE, null=True, blank=True, related_name="quota")
    requests_per_minute = models.PositiveIntegerField(null=True, blank=True)
    concurrent_jobs_max = models.PositiveIntegerField(null=True, blank=True)
    queued_jobs_max = models.PositiveIntegerField(
        null=True, blank=True, help_text="Maximum of waiting jobs; empty for an account: the platform's."
    )
    image_units_per_month = models.DecimalField(max_digits=14, decimal_places=4, null=True, blank=True)
    pixels_max = models.PositiveIntegerField(null=True, blank=True, help_text="Maximum of width x height of an image.")
    steps_max = models.PositiveSmallIntegerField(null=True, blank=True)
    # Of an account alone, not of a key; empty: those of `tenants.quotas.FILE_LIMITS`.
    stored_files_max = models.PositiveIntegerField(null=True, blank=True)
    stored_bytes_max = models.PositiveBigIntegerField(null=True, blank=True)
    uploads_per_minute = models.PositiveIntegerField(null=True, blank=True)
    updated_at = models.DateTimeField()

    class Meta:
        constraints = [
            UniqueConstraint(fields=["tenant"], condition=Q(api_key__isnull=True), name="quota_one_per_tenant"),
            CheckConstraint(
                condition=Q(image_units_per_month__isnull=True) | Q(image_units_per_month__gte=0),
                name="quota_units_not_negative",
            ),
        ]

    @property
    def family_id(self) -> uuid.UUID | None:
        """The family of the key whose limits these are, or None for an account's: its use is counted under that."""
        return None if self.api_key is None else self.api_key.family_id


class MonthlyUse(models.Model):
    """A month's requests (UTC) of a tenant or a family of keys: jobs, and image units less those not delivered.

    A family is counted under its first key.
    """

    tenant = models.ForeignKey(Tenant, on_delete=CASCADE, related_name="+")
    api_key = models.ForeignKey(ApiKey, on_delete=CASCADE, null=True, related_name="+")
    month = models.DateField(help_text="First day of the month.")
    image_units = models.DecimalField(max_digits=20, decimal_places=10)
    # Only ever raised. The default of the database serves a running version that does not know the column.
    jobs = models.BigIntegerField(default=0, db_default=0)

    class Meta:
        constraints = [
            UniqueConstraint(fields=["tenant", "api_key", "month"], nulls_distinct=False, name="monthly_use_unique"),
            CheckConstraint(condition=Q(image_units__gte=0), name="monthly_use_not_negative"),
        ]


class BlockListEntry(models.Model):
    """A phrase or pattern that no prompt may contain: the platform's, or one tenant's own."""

    class Kind(models.TextChoices):
        PHRASE = "phrase", "a phrase in any spelling"
        REGEX = "regex", "an RE2 regular expression"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tenant = models.ForeignKey(Tenant, on_delete=CASCADE, null=True, blank=True, related_name="block_list")
    kind = models.CharField(max_length=10, choices=Kind)
    pattern = models.CharField(max_length=500)
    reason = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "block list entries"
        constraints = [
            UniqueConstraint(fields=["tenant", "kind", "pattern"], nulls_distinct=False, name="block_list_entry_unique")
        ]


class BlockListRevision(models.Model):
    """A counter that a trigger raises at each change of a block list (`tenant` NULL: the platform's)."""

    tenant = models.OneToOneField(Tenant, on_delete=CASCADE, null=True, related_name="+")
    revision = models.BigIntegerField()
