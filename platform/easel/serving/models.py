"""Routes of models, canary rollouts and tenants' experiments: they decide which version serves a caller."""

import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from easel.catalog.models import Model, ModelVersion
from tenants.models import SLUG, Tenant


class Route(models.Model):
    """The share of a model's callers that a version serves. A deferred trigger checks that the weights sum to 100."""

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="routes")
    version = models.OneToOneField(ModelVersion, on_delete=models.PROTECT, related_name="route")
    weight = models.PositiveSmallIntegerField(help_text="Percent of the callers.")

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(weight__gte=1, weight__lte=100), name="route_weight_in_percent")
        ]


# Of an alias: parts as in a hub id, without `@`, which separates a model from its version.
ALIAS_NAME = r"^[A-Za-z0-9][A-Za-z0-9._:-]*(/[A-Za-z0-9][A-Za-z0-9._:-]*)*$"
ALIAS_FIELD = r"^[A-Za-z_][A-Za-z0-9_]{0,63}$"


class Alias(models.Model):
    """A further name of a model, of one tenant's requests or of all, with defaults for the fields that these leave out.

    An alias stands for a model and never for another alias. `sql/aliases.sql` refuses the names of models.
    """

    class ResponseFormat(models.TextChoices):
        B64_JSON = "b64_json", "images as base64"
        URL = "url", "images as URLs"
        BOTH = "both", "both"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=100)
    tenant = models.ForeignKey(
        Tenant, on_delete=models.CASCADE, null=True, related_name="aliases", help_text="Empty: every tenant's."
    )
    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="aliases")
    response_format = models.CharField(max_length=8, choices=ResponseFormat, blank=True)
    quality = models.CharField(max_length=8, blank=True)
    size = models.CharField(max_length=11, blank=True)
    ignored = ArrayField(
        models.CharField(max_length=64), default=list, help_text="Fields that are ignored where they would be refused."
    )
    is_lenient = models.BooleanField(default=False, help_text="All such fields are ignored.")
    created_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "aliases"
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], nulls_distinct=False, name="alias_one_per_name"),
            models.CheckConstraint(condition=Q(name__regex=ALIAS_NAME), name="alias_name_is_a_path"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def defaults(self) -> dict[str, str]:
        """The values of fields that a request leaves out."""
        named = {"response_format": self.response_format, "quality": self.quality, "size": self.size}
        return {name: value for name, value in named.items() if value}


class Rollout(models.Model):
    """A canary: a candidate version gets growing shares of a model's callers, and loses them if it performs badly."""

    class State(models.TextChoices):
        RUNNING = "running"
        PROMOTED = "promoted", "the candidate serves all callers"
        ROLLED_BACK = "rolled_back", "the stable version serves all callers again"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="rollouts")
    stable = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    candidate = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    stages = ArrayField(models.PositiveSmallIntegerField(), help_text="The candidate's percentage in each stage.")
    stage_seconds = models.PositiveIntegerField(help_text="Minimum length of a stage.")
    jobs_min = models.PositiveIntegerField(help_text="Ended jobs of each version that a decision needs.")
    error_rate_max = models.FloatField(help_text="Limit of the candidate's failed jobs over its ended ones.")
    p95_ratio_max = models.FloatField(help_text="Limit of the candidate's p95 latency over the stable version's.")
    state = models.CharField(max_length=12, choices=State, default=State.RUNNING)
    stage = models.PositiveSmallIntegerField(default=0)
    stage_started_at = models.DateTimeField()
    verdict = models.CharField(max_length=300, blank=True, help_text="The guardrail's latest verdict.")
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["model"], condition=Q(state="running"), name="rollout_one_running"),
            models.CheckConstraint(condition=~Q(stable=models.F("candidate")), name="rollout_of_two_versions"),
            models.CheckConstraint(
                condition=Q(state="running", ended_at__isnull=True) | (~Q(state="running") & Q(ended_at__isnull=False)),
                name="rollout_ended_at_iff_not_running",
            ),
            models.CheckConstraint(
                condition=Q(error_rate_max__gte=0, error_rate_max__lte=1, p95_ratio_max__gt=0),
                name="rollout_guardrail_in_range",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.candidate.label} for {self.stable.label}"


class Experiment(models.Model):
    """A tenant's A/B test: callers of `model` are assigned to arms, which set parameters that requests leave open."""

    class State(models.TextChoices):
        RUNNING = "running"
        STOPPED = "stopped"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="experiments")
    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="experiments")
    name = models.CharField(max_length=40)
    state = models.CharField(max_length=10, choices=State, default=State.RUNNING)
    started_at = models.DateTimeField()
    stopped_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], name="experiment_name_unique_in_tenant"),
            # A request belongs to one experiment at most, so that effects can't mix.
            models.UniqueConstraint(
                fields=["tenant", "model"], condition=Q(state="running"), name="experiment_one_running"
            ),
            models.CheckConstraint(condition=Q(name__regex=SLUG), name="experiment_name_is_dns_label"),
            models.CheckConstraint(
                condition=Q(state="running", stopped_at__isnull=True) | Q(state="stopped", stopped_at__isnull=False),
                name="experiment_stopped_at_iff_stopped",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Arm(models.Model):
    """Parameters that an experiment compares; the other arms are tested against the first."""

    experiment = models.ForeignKey(Experiment, on_delete=models.PROTECT, related_name="arms")
    position = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=40)
    weight = models.PositiveSmallIntegerField(help_text="Percent of the callers; an experiment's weights sum to 100.")
    version = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, null=True, related_name="+", help_text="None: the routes decide."
    )
    adapters = models.JSONField(default=list, help_text="`[{name, scale}]`; each job uses the newest versions.")
    steps = models.PositiveSmallIntegerField(null=True)

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["experiment", "position"], name="arm_position_unique"),
            models.UniqueConstraint(fields=["experiment", "name"], name="arm_name_unique"),
            models.CheckConstraint(condition=Q(name__regex=SLUG), name="arm_name_is_dns_label"),
            models.CheckConstraint(condition=Q(weight__gte=1, weight__lte=99), name="arm_weight_in_percent"),
        ]
