"""Budgets, their counts by month, and the thresholds that they have reached."""

import uuid

from django.db import models
from django.db.models import CASCADE, CheckConstraint, Index, Q, UniqueConstraint

from tenants.models import ApiKey, Project, Tenant


class Budget(models.Model):
    """The amount that a tenant, a project or a key means to spend in a month; `hard_stop` refuses jobs above it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tenant = models.ForeignKey(Tenant, on_delete=CASCADE, related_name="budgets")
    project = models.ForeignKey(Project, on_delete=CASCADE, null=True, blank=True, related_name="budgets")
    api_key = models.ForeignKey(ApiKey, on_delete=CASCADE, null=True, blank=True, related_name="budgets")
    amount_micros = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    hard_stop = models.BooleanField(default=False, help_text="Refuse jobs that may exceed the budget.")
    counts_from = models.DateTimeField(help_text="Beginning of the month in which the budget was created.")
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        constraints = [
            UniqueConstraint(
                fields=["tenant", "project", "api_key"], nulls_distinct=False, name="budget_one_per_holder"
            ),
            CheckConstraint(
                condition=Q(project__isnull=True) | Q(api_key__isnull=True), name="budget_of_a_project_or_a_key"
            ),
            CheckConstraint(condition=Q(amount_micros__gte=0), name="budget_not_negative"),
        ]

    def __str__(self) -> str:
        return str(self.project or self.api_key or self.tenant)


class BudgetMonth(models.Model):
    """The charged and the held amount of a budget in a month of its tenant's time zone."""

    budget = models.ForeignKey(Budget, on_delete=CASCADE, related_name="months")
    month = models.DateField(help_text="First day of the month.")
    spent_micros = models.BigIntegerField(default=0)
    held_micros = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            UniqueConstraint(fields=["budget", "month"], name="budget_month_unique"),
            CheckConstraint(condition=Q(held_micros__gte=0), name="budget_held_not_negative"),
        ]


class BudgetHold(models.Model):
    """The amount that an unfinished job holds of a budget, in the month in which the job was admitted."""

    budget_month = models.ForeignKey(BudgetMonth, on_delete=CASCADE, related_name="holds")
    reference = models.UUIDField(db_index=True, help_text="The job's id.")
    amount_micros = models.BigIntegerField()

    class Meta:
        constraints = [UniqueConstraint(fields=["reference", "budget_month"], name="budget_hold_once")]


class BudgetCrossing(models.Model):
    """A threshold that a budget has reached in a month: notified once by webhook and once by e-mail."""

    budget_month = models.ForeignKey(BudgetMonth, on_delete=CASCADE, related_name="crossings")
    percent = models.PositiveSmallIntegerField()
    spent_micros = models.BigIntegerField()
    crossed_at = models.DateTimeField()
    notified_at = models.DateTimeField(null=True, blank=True)
    mailed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [UniqueConstraint(fields=["budget_month", "percent"], name="budget_crossing_once")]
        indexes = [
            Index(
                fields=["crossed_at"],
                condition=Q(notified_at__isnull=True) | Q(mailed_at__isnull=True),
                name="budget_crossing_due",
            )
        ]
