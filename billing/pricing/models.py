"""Meters, price books with their rates, and contracts."""

import uuid
from decimal import Decimal

from django.db import models
from django.db.models import PROTECT, CheckConstraint, F, Q, UniqueConstraint

from tenants.models import Tenant


class Meter(models.TextChoices):
    """A billed kind of quantity. The unit of a quantity is its meter's name."""

    GPU_SECOND = "gpu_second", "GPU seconds"
    POOL_SECOND = "pool_second", "worker seconds of a dedicated pool, idle or not"
    IMAGE_UNIT = "image_unit", "image units of 512x512 pixels"
    REQUEST = "request", "successful requests"
    CACHE_HIT = "cache_hit", "requests answered from the result cache"
    STORAGE_GB_SECOND = "storage_gb_second", "GB (10^9 bytes) stored for a second"


class PriceBook(models.Model):
    """The prices of one currency from `effective_at` until a later book's. A change of price is a new book.

    A tenant's book is in force only by its contract. The list prices whatever the book has no rate for.
    """

    tenant = models.ForeignKey(Tenant, on_delete=PROTECT, null=True, blank=True, related_name="price_books")
    currency = models.CharField(max_length=3)
    version = models.PositiveIntegerField()
    effective_at = models.DateTimeField()
    bills_stopped_work = models.BooleanField(
        default=False, help_text="Charge the steps taken by a job that is canceled or expires while it runs."
    )
    batch_discount = models.DecimalField(
        max_digits=3,
        decimal_places=2,
        default=Decimal(0),
        db_default=Decimal(0),
        help_text="Of the work of batches: 0.5 is half off, in addition to a contract's discount. Of lists alone.",
    )
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            CheckConstraint(
                condition=Q(batch_discount__gte=0, batch_discount__lte=1), name="price_book_batch_discount_in_range"
            ),
            # Books of a currency follow one another: they neither overlap nor leave a gap.
            UniqueConstraint(
                fields=["tenant", "currency", "version"], nulls_distinct=False, name="price_book_version_unique"
            ),
            UniqueConstraint(
                fields=["tenant", "currency", "effective_at"],
                nulls_distinct=False,
                name="price_book_effective_at_unique",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.currency} version {self.version}" + (f" of {self.tenant}" if self.tenant else "")


class Rate(models.Model):
    """The price of one unit of a meter, in units of the book's currency. An empty dimension stands for any.

    Of several rates that fit, one with the model wins, then one with the GPU class, then one with the tier.
    """

    class Mode(models.TextChoices):
        FLAT = "flat", "every unit at the same price"
        GRADUATED = "graduated", "each unit of the month at the price of its tier"
        VOLUME = "volume", "all units of the month at the price of the tier that their sum reaches"

    price_book = models.ForeignKey(PriceBook, on_delete=PROTECT, related_name="rates")
    meter = models.CharField(max_length=20, choices=Meter)
    gpu_class = models.CharField(max_length=40, blank=True, help_text="Empty: any GPU class without a rate of its own.")
    model = models.CharField(max_length=100, blank=True, help_text="Empty: any model without a rate of its own.")
    tier = models.CharField(max_length=10, blank=True, help_text="Empty: any tier without a rate of its own.")
    mode = models.CharField(max_length=10, choices=Mode, default=Mode.FLAT)
    unit_price = models.DecimalField(
        max_digits=30, decimal_places=15, help_text="Up to the first tier, if the rate has tiers."
    )

    class Meta:
        constraints = [
            UniqueConstraint(fields=["price_book", "meter", "gpu_class", "model", "tier"], name="rate_unique_in_book"),
            CheckConstraint(condition=Q(unit_price__gte=0), name="rate_not_negative"),
            CheckConstraint(
                condition=Q(meter__in=[Meter.GPU_SECOND, Meter.POOL_SECOND]) | Q(gpu_class=""),
                name="rate_gpu_class_of_gpu_seconds_only",
            ),
            CheckConstraint(
                condition=~Q(meter__in=[Meter.POOL_SECOND, Meter.STORAGE_GB_SECOND]) | Q(model="", tier=""),
                name="rate_model_of_jobs_only",
            ),
        ]


class PriceTier(models.Model):
    """A rate's price above a number of units of a tenant's month. A free allowance is a first price of 0."""

    rate = models.ForeignKey(Rate, on_delete=PROTECT, related_name="tiers")
    above = models.DecimalField(max_digits=38, decimal_places=15)
    unit_price = models.DecimalField(max_digits=30, decimal_places=15)

    class Meta:
        ordering = ["above"]
        constraints = [
            UniqueConstraint(fields=["rate", "above"], name="rate_tier_unique"),
            CheckConstraint(condition=Q(above__gt=0, unit_price__gte=0), name="rate_tier_in_range"),
        ]


class Contract(models.Model):
    """A tenant's own prices, a discount and a monthly minimum, for a limited time.

    Contracts don't overlap, and terms never change: triggers in `sql/pricing.sql`. Only the end may be moved forward.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tenant = models.ForeignKey(Tenant, on_delete=PROTECT, related_name="contracts")
    price_book = models.ForeignKey(PriceBook, on_delete=PROTECT, null=True, blank=True, related_name="+")
    discount = models.DecimalField(
        max_digits=7, decimal_places=6, default=Decimal(0), help_text="0.1 subtracts a tenth."
    )
    minimum_micros = models.BigIntegerField(default=0, help_text="A month's charges are raised to this amount.")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            CheckConstraint(condition=Q(discount__gte=0, discount__lte=1), name="contract_discount_in_range"),
            CheckConstraint(condition=Q(minimum_micros__gte=0), name="contract_minimum_not_negative"),
            CheckConstraint(
                condition=Q(ends_at__isnull=True) | Q(ends_at__gt=F("starts_at")), name="contract_ends_after_start"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.tenant} from {self.starts_at:%Y-%m-%d}"
