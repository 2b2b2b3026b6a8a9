"""Statements, credit notes and their lines."""

import uuid
from datetime import timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from django.db import models
from django.db.models import CASCADE, PROTECT, CheckConstraint, F, Index, Q, UniqueConstraint

from tenants.models import Project, Tenant


class StatementSequence(models.Model):
    """One row: the last document's number, raised in the transaction that makes a document final, so without gaps."""

    last = models.PositiveBigIntegerField(default=0)


class Statement(models.Model):
    """A tenant's document of a month, or a credit note for one. A draft is rebuilt; a final one never changes."""

    class Kind(models.TextChoices):
        STATEMENT = "statement"
        CREDIT_NOTE = "credit_note", "credit note"

    class State(models.TextChoices):
        DRAFT = "draft"
        FINAL = "final"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tenant = models.ForeignKey(Tenant, on_delete=PROTECT, related_name="statements")
    kind = models.CharField(max_length=12, choices=Kind, default=Kind.STATEMENT)
    state = models.CharField(max_length=5, choices=State, default=State.DRAFT)
    number = models.PositiveBigIntegerField(
        null=True, unique=True, help_text="Number of a final document, without gaps."
    )
    corrects = models.ForeignKey("self", on_delete=PROTECT, null=True, blank=True, related_name="credit_notes")
    currency = models.CharField(max_length=3)
    time_zone = models.CharField(max_length=60)
    period_start = models.DateTimeField()
    period_end = models.DateTimeField()  # exclusive: the next period's start
    billed_to = models.JSONField(default=dict, help_text="Name, address and tax id at the time.")
    tax_name = models.CharField(max_length=40, default="Tax")
    tax_rate = models.DecimalField(max_digits=7, decimal_places=6, default=Decimal(0))
    subtotal_micros = models.BigIntegerField(default=0)
    tax_micros = models.BigIntegerField(default=0)
    total_micros = models.BigIntegerField(default=0)
    made_at = models.DateTimeField()
    finalised_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            UniqueConstraint(
                fields=["tenant", "period_start"], condition=Q(kind="statement"), name="statement_once_per_period"
            ),
            UniqueConstraint(
                fields=["tenant", "period_end"], condition=Q(kind="statement"), name="statement_ends_once"
            ),
            CheckConstraint(condition=Q(period_end__gt=F("period_start")), name="statement_period_not_empty"),
            CheckConstraint(
                condition=Q(state="final", number__isnull=False, finalised_at__isnull=False)
                | Q(state="draft", number__isnull=True, finalised_at__isnull=True),
                name="statement_numbered_iff_final",
            ),
            CheckConstraint(
                condition=Q(kind="credit_note", corrects__isnull=False) | Q(kind="statement", corrects__isnull=True),
                name="credit_note_corrects_a_statement",
            ),
            CheckConstraint(condition=Q(total_micros=F("subtotal_micros") + F("tax_micros")), name="statement_adds_up"),
        ]
        indexes = [Index(fields=["tenant", "-period_start"], name="statement_by_tenant")]

    def __str__(self) -> str:
        if self.number:
            return f"{self.kind} {self.number}"
        last = self.period_end - timedelta(microseconds=1)
        return f"draft of {last.astimezone(ZoneInfo(self.time_zone)):%Y-%m}"


class StatementLine(models.Model):
    """A sum of charges of one project, meter, model and price, or an adjustment.

    Its charges are those of the statement with the same `project`, `meter`, `model`, `rate`, `kind` and `discount`.
    """

    statement = models.ForeignKey(Statement, on_delete=CASCADE, related_name="lines")
    position = models.PositiveIntegerField()
    project = models.ForeignKey(Project, on_delete=PROTECT, null=True, blank=True, related_name="+")
    meter = models.CharField(max_length=20, blank=True, help_text="Empty for an adjustment.")
    model = models.CharField(max_length=100, blank=True)
    rate = models.ForeignKey("billing.Rate", on_delete=PROTECT, null=True, blank=True, related_name="+")
    kind = models.CharField(max_length=10, default="usage", help_text="Kind of its charges, or of the adjustment.")
    discount = models.DecimalField(max_digits=7, decimal_places=6, default=Decimal(0))
    description = models.CharField(max_length=300)
    quantity = models.DecimalField(max_digits=38, decimal_places=15, null=True)
    charges = models.PositiveIntegerField(default=0, help_text="Number of charges in the sum.")
    amount_micros = models.BigIntegerField()

    class Meta:
        ordering = ["position"]
        constraints = [UniqueConstraint(fields=["statement", "position"], name="statement_line_position_unique")]
