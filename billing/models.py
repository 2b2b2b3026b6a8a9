"""Money: what was used (usage records), what it cost (charges), and where the money is (the ledger).

Everything here but `Account.balance_micros` is append-only, and the database refuses otherwise; balances are
moved by the trigger that sees the entries. Migration `0002` holds the triggers.
"""

import uuid

from django.db import models
from django.db.models import F, Q

from tenants.models import Project, Tenant


class Meter(models.TextChoices):
    """What is counted. The quantity's unit is the meter's name."""

    GPU_SECOND = "gpu_second", "GPU seconds"
    IMAGE_UNIT = "image_unit", "image units of 512x512 pixels"
    REQUEST = "request", "successful requests"
    STORAGE_GB_SECOND = "storage_gb_second", "GB (10^9 bytes) kept for a second"


class PriceBook(models.Model):
    """The prices of one currency from `effective_at` until a later book's; a change of price is a new book."""

    currency = models.CharField(max_length=3)
    version = models.PositiveIntegerField()
    effective_at = models.DateTimeField()
    bills_stopped_work = models.BooleanField(
        default=False, help_text="Whether a job that is canceled or expires while it runs pays for the steps it took."
    )
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["currency", "version"], name="price_book_version_unique"),
            models.UniqueConstraint(fields=["currency", "effective_at"], name="price_book_effective_at_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.currency} version {self.version}"


class Rate(models.Model):
    """The price of one unit of a meter, in units of the book's currency."""

    price_book = models.ForeignKey(PriceBook, on_delete=models.PROTECT, related_name="rates")
    meter = models.CharField(max_length=20, choices=Meter)
    gpu_class = models.CharField(max_length=40, blank=True, help_text="Empty: any class without its own rate.")
    unit_price = models.DecimalField(max_digits=30, decimal_places=15)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["price_book", "meter", "gpu_class"], name="rate_unique_in_book"),
            models.CheckConstraint(condition=Q(unit_price__gte=0), name="rate_not_negative"),
            models.CheckConstraint(
                condition=Q(meter=Meter.GPU_SECOND) | Q(gpu_class=""),
                name="rate_gpu_class_of_gpu_seconds_only",
            ),
        ]


class UsageRecord(models.Model):
    """One measured quantity of one meter; `dimensions` are what reports group by, as they were at the time."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    idempotency_key = models.CharField(max_length=100, unique=True)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="+")
    job_id = models.UUIDField(null=True, db_index=True, help_text="None for storage.")
    meter = models.CharField(max_length=20, choices=Meter)
    # 15 places hold bytes times microseconds, in GB-seconds, exactly.
    quantity = models.DecimalField(max_digits=38, decimal_places=15)
    dimensions = models.JSONField()
    occurred_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["tenant", "occurred_at"], name="usage_by_tenant_and_time")]
        constraints = [models.CheckConstraint(condition=Q(quantity__gte=0), name="usage_not_negative")]


class StoredObject(models.Model):
    """Bytes that a project keeps, from `created_at` to `deleted_at`; what storage is metered from."""

    class Kind(models.TextChoices):
        OUTPUT = "output"
        ADAPTER = "adapter"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="stored_objects")
    kind = models.CharField(max_length=10, choices=Kind)
    storage_key = models.CharField(max_length=300)
    size_bytes = models.PositiveBigIntegerField()
    created_at = models.DateTimeField()
    deleted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["storage_key"], condition=Q(deleted_at__isnull=True), name="stored_object_once"
            ),
            models.CheckConstraint(
                condition=Q(deleted_at__isnull=True) | Q(deleted_at__gte=F("created_at")),
                name="stored_object_deleted_after_created",
            ),
        ]
        indexes = [models.Index(fields=["project", "kind", "created_at"], name="stored_object_by_project")]


class StorageDay(models.Model):
    """A day (UTC) whose storage is metered and charged for every project."""

    day = models.DateField(primary_key=True)
    metered_at = models.DateTimeField()


class Account(models.Model):
    """One of a tenant's accounts; `balance_micros` equals the sum of its entries."""

    class Kind(models.TextChoices):
        FUNDING = "funding", "where credit comes from"
        CREDIT = "credit", "what the tenant can spend"
        HELD = "held", "what is reserved for jobs not settled yet"
        REVENUE = "revenue", "what was earned"
        RECEIVABLE = "receivable", "what the tenant owes, below zero: the next grant pays it first"

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="accounts")
    kind = models.CharField(max_length=20, choices=Kind)
    currency = models.CharField(max_length=3)
    balance_micros = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "kind", "currency"], name="account_unique"),
            models.CheckConstraint(
                condition=Q(kind__in=["funding", "receivable"]) | Q(balance_micros__gte=0),
                name="account_not_overdrawn",
            ),
            models.CheckConstraint(
                condition=~Q(kind="receivable") | Q(balance_micros__lte=0), name="receivable_is_owed"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.tenant} {self.kind}"


class Transaction(models.Model):
    """A movement of money; its entries sum to zero."""

    class Kind(models.TextChoices):
        GRANT = "grant", "credit given"
        HOLD = "hold", "credit reserved"
        POST = "post", "a hold settled: charged, and the rest returned"
        VOID = "void", "a hold returned whole"
        CHARGE = "charge", "charged without a hold: from credit as far as it goes, the rest is owed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    kind = models.CharField(max_length=10, choices=Kind)
    currency = models.CharField(max_length=3)
    reference = models.UUIDField(help_text="The caller's id: of the grant, or of the job whose hold this is.")
    description = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            # What makes every verb of `billing.ledger` harmless to repeat.
            models.UniqueConstraint(fields=["reference", "kind"], name="transaction_once"),
            models.UniqueConstraint(
                fields=["reference"], condition=Q(kind__in=["post", "void"]), name="hold_settled_once"
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "created_at"], name="transaction_by_tenant"),
            models.Index(fields=["-created_at", "-id"], name="transaction_by_time"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


class Entry(models.Model):
    """One side of a transaction: `amount_micros` is added to the account's balance."""

    transaction = models.ForeignKey(Transaction, on_delete=models.PROTECT, related_name="entries")
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="entries")
    amount_micros = models.BigIntegerField()

    class Meta:
        constraints = [models.CheckConstraint(condition=~Q(amount_micros=0), name="entry_not_empty")]


class Charge(models.Model):
    """What a usage record cost, by which rate. The charges of a job sum to its `post` transaction."""

    class Kind(models.TextChoices):
        USAGE = "usage", "quantity times price"
        CAP = "cap", "what is let off because the job cost more than was held for it"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    usage_record = models.ForeignKey(UsageRecord, on_delete=models.PROTECT, related_name="charges")
    transaction = models.ForeignKey(Transaction, on_delete=models.PROTECT, related_name="charges")
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.USAGE)
    rate = models.ForeignKey(Rate, on_delete=models.PROTECT, related_name="+")
    amount_micros = models.BigIntegerField()
    currency = models.CharField(max_length=3)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["usage_record", "kind"], name="usage_charged_once"),
            models.CheckConstraint(
                condition=Q(kind="usage", amount_micros__gte=0) | Q(kind="cap", amount_micros__lt=0),
                name="charge_sign",
            ),
        ]
        ordering = [F("created_at").asc()]
        indexes = [models.Index(fields=["created_at"], name="charge_by_time")]
