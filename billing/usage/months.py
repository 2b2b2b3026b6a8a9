"""Counts a tenant's usage of rates with tiers by the month of its time zone."""

from datetime import datetime
from decimal import Decimal

from django.db import connection

from billing.money import EXACT
from billing.pricing.models import Rate
from billing.pricing.rating import ZERO, Tariff
from billing.profiles import month_of, zone_of
from billing.usage.models import MonthlyQuantity
from tenants.models import Tenant

# One query, so that of two jobs that end at once the second counts from where the first ended. The row stays locked
# until the transaction ends.
_TAKE = """
INSERT INTO billing_monthlyquantity AS month (tenant_id, rate_id, month, quantity) VALUES (%s, %s, %s, %s)
ON CONFLICT (tenant_id, rate_id, month) DO UPDATE SET quantity = month.quantity + excluded.quantity
RETURNING quantity
"""


def month_so_far(*, tenant: Tenant, tariff: Tariff, now: datetime) -> Decimal:
    """Return the usage of a rate in the month of `now`; 0 for a flat rate."""
    month = month_of(now, zone_of(tenant.pk))
    found = MonthlyQuantity.objects.filter(tenant=tenant, rate=tariff.rate_id, month=month)
    return found.values_list("quantity", flat=True).first() or ZERO if tariff.mode != Rate.Mode.FLAT else ZERO


def month_take(*, tenant: Tenant, tariff: Tariff, amount: Decimal, now: datetime) -> Decimal:
    """Add to the month's usage of a rate; return the usage before. A flat rate isn't counted and returns 0.

    The caller has the tenant's balance locked (`balance_lock`): accounts are locked before months, everywhere.
    """
    if tariff.mode == Rate.Mode.FLAT:
        return ZERO
    with connection.cursor() as cursor:
        cursor.execute(_TAKE, [tenant.pk, tariff.rate_id, month_of(now, zone_of(tenant.pk)), amount])
        after: Decimal = cursor.fetchone()[0]
    return EXACT.subtract(after, amount)
