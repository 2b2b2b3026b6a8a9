"""What charges add up to by the day: what reports read where charges themselves are too many."""

from decimal import Decimal

from django.db import models

from billing.invoices.models import Statement
from billing.pricing.models import Contract, Rate
from tenants.models import Project, Tenant


class CostDay(models.Model):
    """A day (UTC) whose charges are added up in `DailyCost`, as are those of all days before the newest one of these.

    No charge is left out, whenever it commits. Who writes a charge holds a shared lock on its day until the commit;
    who seals a day takes that lock alone, so sees them all; and a charge of a sealed day adds itself (`0012`).
    """

    day = models.DateField(primary_key=True)
    sealed_at = models.DateTimeField()


class DailyCost(models.Model):
    """A sum of charges of one day that are alike. Rows are only added, so several may be alike."""

    day = models.DateField(help_text="On which it was used, in UTC.")
    booked_at = models.DateTimeField(
        help_text="The beginning of the day (UTC) in which the charges were written; on the last and the first day of"
        " a month, of the quarter hour, since a statement may end at any of those in its time zone."
    )
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="+")
    labels = models.JSONField(null=True, help_text="The project's at the time; None before they were kept.")
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
    rate = models.ForeignKey(Rate, on_delete=models.PROTECT, related_name="+")
    contract = models.ForeignKey(Contract, on_delete=models.PROTECT, null=True, related_name="+")
    discount = models.DecimalField(max_digits=7, decimal_places=6, default=Decimal(0))
    statement = models.ForeignKey(
        Statement, on_delete=models.PROTECT, null=True, related_name="+", help_text="A credit note."
    )
    currency = models.CharField(max_length=3)
    quantity = models.DecimalField(max_digits=38, decimal_places=15, help_text="0 of a cap, whose usage has it.")
    amount_micros = models.BigIntegerField()
    list_micros = models.BigIntegerField(help_text="By the list's prices; the amount where those were not kept.")
    charges = models.PositiveIntegerField(help_text="How many it sums.")

    class Meta:
        indexes = [
            models.Index(fields=["day"], name="daily_cost_by_day"),
            models.Index(fields=["tenant", "day"], name="daily_cost_by_tenant"),
            models.Index(fields=["tenant", "booked_at"], name="daily_cost_by_booking"),
        ]
