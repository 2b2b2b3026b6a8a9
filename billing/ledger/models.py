"""Ledger accounts, the transactions whose entries change them, credit grants, and manual adjustments."""

import uuid

from django.db import models
from django.db.models import PROTECT, CheckConstraint, F, Index, Q, UniqueConstraint

from tenants.models import Project, Tenant


class LedgerAccount(models.Model):
    """One of a tenant's accounts. A trigger keeps `balance_micros` equal to the sum of its entries."""

    class Kind(models.TextChoices):
        FUNDING = "funding", "source of granted credit"
        CREDIT = "credit", "credit to spend; below zero, down to the limit: debt within the limit"
        HELD = "held", "reserved for jobs that are not settled yet"
        REVENUE = "revenue", "earned, by meter"
        RECEIVABLE = "receivable", "debt beyond the limit, below zero; the next grant pays it first"
        ADJUSTMENTS = "adjustments", "manual adjustments"
        EXPIRED = "expired", "expired credit"
        TAX = "tax", "taxes on final statements"
        WRITE_OFF = "write_off", "debts written off"

    tenant = models.ForeignKey(Tenant, on_delete=PROTECT, related_name="accounts")
    kind = models.CharField(max_length=20, choices=Kind)
    meter = models.CharField(max_length=20, blank=True, help_text="Of revenue accounts only.")
    currency = models.CharField(max_length=3)
    balance_micros = models.BigIntegerField(default=0)
    credit_limit_micros = models.BigIntegerField(default=0, help_text="Lowest allowed balance of `credit`, below zero.")
    budgeted = models.BooleanField(default=False, help_text="Of `credit` accounts: the tenant has budgets.")

    class Meta:
        constraints = [
            UniqueConstraint(fields=["tenant", "kind", "meter", "currency"], name="account_unique"),
            CheckConstraint(
                condition=~Q(kind__in=["held", "expired"]) | Q(balance_micros__gte=0), name="account_not_overdrawn"
            ),
            CheckConstraint(
                condition=~Q(kind="credit") | Q(balance_micros__gte=-F("credit_limit_micros")),
                name="credit_within_its_limit",
            ),
            CheckConstraint(
                condition=Q(credit_limit_micros=0) | Q(kind="credit", credit_limit_micros__gt=0),
                name="account_limit_of_credit_only",
            ),
            CheckConstraint(condition=Q(meter="") | Q(kind="revenue"), name="account_meter_of_revenue_only"),
            CheckConstraint(
                condition=~Q(kind__in=["receivable", "write_off"]) | Q(balance_micros__lte=0), name="receivable_is_owed"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.tenant} {self.kind}" + (f" {self.meter}" if self.meter else "")


class Transaction(models.Model):
    """A movement of money. Its entries sum to zero: a deferred trigger in `sql/ledger.sql` checks it."""

    class Kind(models.TextChoices):
        GRANT = "grant", "credit granted"
        HOLD = "hold", "credit reserved"
        POST = "post", "hold settled: its cost charged, the rest returned"
        VOID = "void", "hold returned whole"
        CHARGE = "charge", "charge without a hold: from credit as far as it goes, the rest is owed"
        CORRECT = "correct", "price difference of a usage correction"
        ADJUST = "adjust", "manual adjustment"
        EXPIRE = "expire", "expired credit"
        TAX = "tax", "tax of a final statement"
        WRITE_OFF = "write_off", "debt written off"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tenant = models.ForeignKey(Tenant, on_delete=PROTECT, related_name="+")
    kind = models.CharField(max_length=10, choices=Kind)
    currency = models.CharField(max_length=3)
    reference = models.UUIDField(help_text="The caller's id, which makes a repeat harmless: for a hold, the job's.")
    description = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            # Makes every verb of the ledger idempotent.
            UniqueConstraint(fields=["reference", "kind"], name="transaction_once"),
            UniqueConstraint(fields=["reference"], condition=Q(kind__in=["post", "void"]), name="hold_settled_once"),
        ]
        indexes = [
            Index(fields=["tenant", "created_at"], name="transaction_by_tenant"),
            Index(fields=["-created_at", "-id"], name="transaction_by_time"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


class Entry(models.Model):
    """One side of a transaction: `amount_micros` is added to the account's balance."""

    transaction = models.ForeignKey(Transaction, on_delete=PROTECT, related_name="entries")
    account = models.ForeignKey(LedgerAccount, on_delete=PROTECT, related_name="entries")
    amount_micros = models.BigIntegerField()

    class Meta:
        constraints = [CheckConstraint(condition=~Q(amount_micros=0), name="entry_not_empty")]


class Adjustment(models.Model):
    """Author and reason of an adjustment; those of a month's minimum or volume price are the platform's own."""

    class Kind(models.TextChoices):
        CREDIT = "credit", "paid to the tenant"
        DEBIT = "debit", "charged to the tenant"
        WRITE_OFF = "write_off", "debt written off"
        MINIMUM = "minimum", "shortfall of a month's charges below the contract's minimum"
        VOLUME = "volume", "difference of a month's volume price from its charges"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tenant = models.ForeignKey(Tenant, on_delete=PROTECT, related_name="adjustments")
    project = models.ForeignKey(Project, on_delete=PROTECT, null=True, blank=True, related_name="+")
    transaction = models.OneToOneField(Transaction, on_delete=PROTECT, related_name="adjustment")
    kind = models.CharField(max_length=10, choices=Kind)
    amount_micros = models.BigIntegerField(help_text="Above zero the tenant pays more.")
    currency = models.CharField(max_length=3)
    reason = models.CharField(max_length=200)
    author = models.CharField(max_length=200, help_text="As in the audit log, for example `operator:ann`.")
    charge = models.ForeignKey(
        "billing.Charge",
        on_delete=PROTECT,
        null=True,
        blank=True,
        related_name="adjustments",
        help_text="The disputed charge.",
    )
    statement = models.ForeignKey(
        "billing.Statement",
        on_delete=PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="The statement it was made for; empty: the statement of the month in which it was made.",
    )
    created_at = models.DateTimeField()

    class Meta:
        constraints = [CheckConstraint(condition=~Q(amount_micros=0) & ~Q(reason=""), name="adjustment_says_why")]
        indexes = [Index(fields=["tenant", "created_at"], name="adjustment_by_tenant")]


class CreditGrant(models.Model):
    """Credit granted at once, and its remainder. The lowest priority is spent first, then what expires first."""

    class Category(models.TextChoices):
        PAID = "paid", "bought"
        PROMOTIONAL = "promotional", "given away"
        REFUND = "refund", "refund by a correction or an adjustment"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tenant = models.ForeignKey(Tenant, on_delete=PROTECT, related_name="credit_grants")
    transaction = models.OneToOneField(Transaction, on_delete=PROTECT, related_name="credit_grant")
    category = models.CharField(max_length=12, choices=Category, default=Category.PAID)
    priority = models.SmallIntegerField(default=50, help_text="0 is spent first, 100 last.")
    currency = models.CharField(max_length=3)
    amount_micros = models.BigIntegerField()
    remaining_micros = models.BigIntegerField()
    expires_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            CheckConstraint(
                condition=Q(
                    amount_micros__gt=0, remaining_micros__gte=0, remaining_micros__lte=models.F("amount_micros")
                ),
                name="credit_grant_in_range",
            ),
            CheckConstraint(condition=Q(priority__gte=0, priority__lte=100), name="credit_grant_priority_in_range"),
        ]
        indexes = [
            Index(
                fields=["tenant", "priority", "expires_at", "created_at"],
                condition=Q(remaining_micros__gt=0),
                name="credit_grant_to_spend",
            ),
            Index(
                fields=["expires_at"],
                condition=Q(remaining_micros__gt=0, expires_at__isnull=False),
                name="credit_grant_to_expire",
            ),
        ]

    @classmethod
    def to_spend(cls, tenant: Tenant) -> "models.QuerySet[CreditGrant]":
        """Return a tenant's grants that have a remainder, in the order in which they are spent."""
        left = cls.objects.filter(tenant=tenant, currency=tenant.currency, remaining_micros__gt=0)
        return left.order_by("priority", F("expires_at").asc(nulls_last=True), "created_at", "id")


class CreditDraw(models.Model):
    """The amount that a transaction consumed of a grant."""

    grant = models.ForeignKey(CreditGrant, on_delete=PROTECT, related_name="draws")
    transaction = models.ForeignKey(Transaction, on_delete=PROTECT, related_name="draws")
    amount_micros = models.BigIntegerField()

    class Meta:
        constraints = [
            UniqueConstraint(fields=["transaction", "grant"], name="credit_draw_once"),
            CheckConstraint(condition=Q(amount_micros__gt=0), name="credit_draw_not_empty"),
        ]
