"""Usage records and their charges, stored objects, and sums by month and day."""

import uuid
from decimal import Decimal

from django.db import models
from django.db.models import PROTECT, CheckConstraint, F, Index, Q, UniqueConstraint

from billing.ledger.models import Transaction
from billing.pricing.models import Contract, Meter, Rate
from tenants.models import Project, Tenant


class UsageRecord(models.Model):
    """One measured quantity of one meter.

    Reports group by `dimensions`, as they were at the time: names of the model, version, adapters and key, and the
    project's `labels`. A wrong record stays; a later one that `corrects` it adds the difference, which may be negative.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    idempotency_key = models.CharField(max_length=100, unique=True)
    tenant = models.ForeignKey(Tenant, on_delete=PROTECT, related_name="+")
    project = models.ForeignKey(Project, on_delete=PROTECT, related_name="+")
    job_id = models.UUIDField(null=True, db_index=True, help_text="None for storage and dedicated pools.")
    meter = models.CharField(max_length=20, choices=Meter)
    # 15 decimal places store bytes times microseconds exactly, in GB-seconds.
    quantity = models.DecimalField(max_digits=38, decimal_places=15)
    dimensions = models.JSONField()
    source = models.CharField(max_length=40, default="completion", help_text="The component that measured it.")
    corrects = models.ForeignKey("self", on_delete=PROTECT, null=True, blank=True, related_name="corrections")
    reason = models.CharField(max_length=200, blank=True, help_text="Why it was corrected.")
    occurred_at = models.DateTimeField()

    class Meta:
        indexes = [
            Index(fields=["tenant", "occurred_at"], name="usage_by_tenant_and_time"),
            Index(fields=["occurred_at"], name="usage_by_time"),
        ]
        constraints = [
            CheckConstraint(condition=Q(quantity__gte=0) | Q(corrects__isnull=False), name="usage_not_negative"),
            CheckConstraint(condition=Q(corrects__isnull=True) | ~Q(reason=""), name="usage_correction_has_a_reason"),
        ]


class StoredObject(models.Model):
    """Bytes that a project stores from `created_at` to `deleted_at`; storage is metered from these rows."""

    class Kind(models.TextChoices):
        OUTPUT = "output"
        ADAPTER = "adapter"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    project = models.ForeignKey(Project, on_delete=PROTECT, related_name="stored_objects")
    kind = models.CharField(max_length=10, choices=Kind)
    storage_key = models.CharField(max_length=300)
    size_bytes = models.PositiveBigIntegerField()
    created_at = models.DateTimeField()
    deleted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            UniqueConstraint(fields=["storage_key"], condition=Q(deleted_at__isnull=True), name="stored_object_once"),
            CheckConstraint(
                condition=Q(deleted_at__isnull=True) | Q(deleted_at__gte=F("created_at")),
                name="stored_object_deleted_after_created",
            ),
        ]
        indexes = [Index(fields=["project", "kind", "created_at"], name="stored_object_by_project")]


class StorageDay(models.Model):
    """A day (UTC) whose storage has been metered and charged for every project."""

    day = models.DateField(primary_key=True)
    metered_at = models.DateTimeField()


class MonthlyQuantity(models.Model):
    """A tenant's usage of a rate with tiers in a month of its time zone: it decides the next unit's tier."""

    tenant = models.ForeignKey(Tenant, on_delete=PROTECT, related_name="+")
    rate = models.ForeignKey(Rate, on_delete=PROTECT, related_name="+")
    month = models.DateField(help_text="First day of the month.")
    quantity = models.DecimalField(max_digits=38, decimal_places=15, default=0)

    class Meta:
        constraints = [UniqueConstraint(fields=["tenant", "rate", "month"], name="monthly_quantity_unique")]


class Charge(models.Model):
    """The cost of a usage record, by one rate. The charges of a job sum to its `post` transaction.

    `amount_micros` depends only on the record's quantity, the rate, `used_before` and `discount`, so that it can be
    rated again. A month's statement has the charges that were written in the month and name no statement.
    """

    class Kind(models.TextChoices):
        USAGE = "usage", "quantity times price"
        WAIVER = (
            "waiver",
            "the part of a job's cost above its hold, below zero; above zero in a correction that takes it back",
        )
        CORRECTION = "correction", "price difference of a usage correction"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    usage_record = models.ForeignKey(UsageRecord, on_delete=PROTECT, related_name="charges")
    transaction = models.ForeignKey(Transaction, on_delete=PROTECT, related_name="charges")
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.USAGE)
    rate = models.ForeignKey(Rate, on_delete=PROTECT, related_name="+")
    contract = models.ForeignKey(Contract, on_delete=PROTECT, null=True, blank=True, related_name="+")
    used_before = models.DecimalField(
        max_digits=38,
        decimal_places=15,
        default=0,
        help_text="Earlier usage of the rate in the month, if the rate has tiers.",
    )
    discount = models.DecimalField(max_digits=7, decimal_places=6, default=Decimal(0))
    amount_micros = models.BigIntegerField()
    list_micros = models.BigIntegerField(null=True, help_text="The amount by list prices; None if unknown.")
    currency = models.CharField(max_length=3)
    statement = models.ForeignKey(
        "billing.Statement", on_delete=PROTECT, null=True, blank=True, related_name="+", help_text="A credit note."
    )
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            UniqueConstraint(fields=["usage_record", "kind"], name="usage_charged_once"),
            CheckConstraint(
                condition=Q(kind="usage", amount_micros__gte=0)
                | Q(kind="waiver") & ~Q(amount_micros=0)
                | Q(kind="correction"),
                name="charge_sign",
            ),
        ]
        ordering = [F("created_at").asc()]
        indexes = [Index(fields=["created_at"], name="charge_by_time")]


class CostDay(models.Model):
    """A sealed day (UTC): its charges are summed in `DailyCost`, as are those of all earlier days.

    A charge takes a shared lock on its day until it commits. Sealing a day takes the lock exclusively, so it sees all
    charges. A charge of a sealed day adds itself: `sql/usage.sql`.
    """

    day = models.DateField(primary_key=True)
    sealed_at = models.DateTimeField()


class DailyCost(models.Model):
    """A sum of charges of one day that share all these columns. Rows are only added, so several may share them, too."""

    day = models.DateField(help_text="The day of use, in UTC.")
    booked_at = models.DateTimeField(
        help_text="Beginning of the day (UTC) in which the charges were written; on the last and first day of a month,"
        " of the quarter hour, because a statement's month may end at any quarter hour."
    )
    tenant = models.ForeignKey(Tenant, on_delete=PROTECT, related_name="+")
    project = models.ForeignKey(Project, on_delete=PROTECT, related_name="+")
    labels = models.JSONField(null=True, help_text="The project's labels at the time; None if unknown.")
    pool = models.CharField(max_length=40, blank=True)
    model = models.CharField(max_length=100, blank=True)
    model_version = models.CharField(max_length=200, blank=True)
    adapter = models.TextField(blank=True)
    quality = models.CharField(max_length=20, blank=True)
    tier = models.CharField(max_length=10, blank=True)
    resolution = models.CharField(max_length=20, blank=True)
    api_key = models.CharField(max_length=20, blank=True)
    gpu_class = models.CharField(max_length=40, blank=True)
    storage_kind = models.CharField(max_length=10, blank=True)
    meter = models.CharField(max_length=20)
    kind = models.CharField(max_length=10)
    rate = models.ForeignKey(Rate, on_delete=PROTECT, related_name="+")
    contract = models.ForeignKey(Contract, on_delete=PROTECT, null=True, related_name="+")
    discount = models.DecimalField(max_digits=7, decimal_places=6, default=Decimal(0))
    statement = models.ForeignKey(
        "billing.Statement", on_delete=PROTECT, null=True, related_name="+", help_text="A credit note."
    )
    currency = models.CharField(max_length=3)
    quantity = models.DecimalField(max_digits=38, decimal_places=15, help_text="0 for a waiver: its usage has it.")
    amount_micros = models.BigIntegerField()
    list_micros = models.BigIntegerField(
        help_text="The amount by list prices; the charged amount where they are unknown."
    )
    charges = models.PositiveIntegerField(help_text="Number of charges in the sum.")

    class Meta:
        indexes = [
            Index(fields=["day"], name="daily_cost_by_day"),
            Index(fields=["tenant", "day"], name="daily_cost_by_tenant"),
            Index(fields=["tenant", "booked_at"], name="daily_cost_by_booking"),
        ]
