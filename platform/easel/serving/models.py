"""Who serves a caller: routes of models, canary rollouts and tenants' experiments."""

import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from easel.catalog.models import Model, ModelVersion
from tenants.models import SLUG, Tenant


class Route(models.Model):
    """The share of a model's requests that a version serves; a model's weights sum to 100 (a deferred trigger)."""

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="routes")
    version = models.OneToOneField(ModelVersion, on_delete=models.PROTECT, related_name="route")
    weight = models.PositiveSmallIntegerField(help_text="Percent of the callers.")

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(weight__gte=1, weight__lte=100), name="route_weight_in_percent")
        ]


class Rollout(models.Model):
    """A canary: a candidate takes growing shares of a model's requests, and gives them back if it does badly."""

    class State(models.TextChoices):
        RUNNING = "running"
        PROMOTED = "promoted", "the candidate serves all"
        ROLLED_BACK = "rolled_back", "the stable version serves all again"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="rollouts")
    stable = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    candidate = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="+")
    stages = ArrayField(models.PositiveSmallIntegerField(), help_text="The candidate's percent, stage by stage.")
    stage_seconds = models.PositiveIntegerField(help_text="How long a stage lasts at least.")
    jobs_min = models.PositiveIntegerField(help_text="Ended jobs of the candidate that a verdict needs.")
    error_rate_max = models.FloatField(help_text="Failed jobs of the candidate over its ended ones.")
    p95_ratio_max = models.FloatField(help_text="The candidate's p95 of seconds to finish, over the stable version's.")
    state = models.CharField(max_length=12, choices=State, default=State.RUNNING)
    stage = models.PositiveSmallIntegerField(default=0)
    stage_started_at = models.DateTimeField()
    verdict = models.CharField(max_length=300, blank=True, help_text="What the guardrail saw last, in words.")
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
    """A tenant's A/B test: its requests to `model` that leave open what the arms set are shared out between them."""

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
            # So that a request can't belong to two, and their effects can't mix.
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
    """One of the ways that an experiment compares; the first is what the others are tested against."""

    experiment = models.ForeignKey(Experiment, on_delete=models.PROTECT, related_name="arms")
    position = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=40)
    weight = models.PositiveSmallIntegerField(help_text="Percent of the callers; an experiment's sum to 100.")
    version = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, null=True, related_name="+", help_text="None: as the model routes."
    )
    adapters = models.JSONField(default=list, help_text="`[{name, scale}]`; each job takes their newest versions.")
    steps = models.PositiveSmallIntegerField(null=True)

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["experiment", "position"], name="arm_position_unique"),
            models.UniqueConstraint(fields=["experiment", "name"], name="arm_name_unique"),
            models.CheckConstraint(condition=Q(name__regex=SLUG), name="arm_name_is_dns_label"),
            models.CheckConstraint(condition=Q(weight__gte=1, weight__lte=99), name="arm_weight_in_percent"),
        ]
