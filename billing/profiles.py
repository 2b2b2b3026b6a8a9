"""Billing profiles: a tenant's name, address and tax on statements, and the time zone of its months."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import CASCADE, CheckConstraint, Q

from core.errors import DomainError
from core.revision import cached_by_revision
from core.text import text_unstorable_at
from tenants.models import Tenant

FIELDS = ("legal_name", "address", "email", "tax_id", "tax_name", "tax_rate", "time_zone")
_ADDRESS_CHARS_MAX = 1000
_ZONES = available_timezones() - {"localtime", "Factory"}  # the server's own zone, and a placeholder


class BillingProfile(models.Model):
    """A tenant's billing data. A tenant without a row is billed in UTC and without tax."""

    tenant = models.OneToOneField(Tenant, on_delete=CASCADE, primary_key=True, related_name="billing_profile")
    legal_name = models.CharField(max_length=200, blank=True)
    address = models.TextField(blank=True)
    email = models.EmailField(blank=True, help_text="Receives statements and budget notices.")
    tax_id = models.CharField(max_length=60, blank=True)
    tax_name = models.CharField(max_length=40, default="Tax", help_text="As statements show it, for example VAT.")
    tax_rate = models.DecimalField(max_digits=7, decimal_places=6, default=Decimal(0), help_text="0.19 is 19 %.")
    time_zone = models.CharField(
        max_length=60,
        default="UTC",
        help_text="Time zone of months and statements; a change takes effect with the next month.",
    )
    updated_at = models.DateTimeField()

    class Meta:
        constraints = [CheckConstraint(condition=Q(tax_rate__gte=0, tax_rate__lte=1), name="tax_rate_in_range")]


class ProfileInvalid(DomainError, code="billing_profile_invalid"):
    """The billing profile is invalid.

    Correct the field that the message names.
    """


def profile_of(tenant: Tenant) -> BillingProfile:
    """Return a tenant's billing profile."""
    return BillingProfile.objects.filter(tenant=tenant).first() or BillingProfile(tenant=tenant)


def profile_set(*, tenant: Tenant, changes: Mapping[str, Any], now: datetime) -> BillingProfile:
    """Change some of `FIELDS`; a new zone takes effect with the next month. Raises `ProfileInvalid`."""
    profile = profile_of(tenant)
    for name, value in changes.items():
        if name not in FIELDS:
            raise ProfileInvalid(f"unknown field {name!r}; the fields are {', '.join(FIELDS)}")
        setattr(profile, name, value if name == "tax_rate" else value.strip())
    _check(profile)
    profile.updated_at = now
    profile.save()
    return profile


def _check(profile: BillingProfile) -> None:
    rate = profile.tax_rate
    is_share = isinstance(rate, Decimal | int) and Decimal(rate).is_finite() and 0 <= rate <= 1
    if not is_share or rate != round(Decimal(rate), 6):
        fault = "a tax rate must be between 0 and 1, with at most 6 decimal places: 0.19 is 19 %"
        raise ProfileInvalid(fault, param="tax_rate")
    if (zone := profile.time_zone) not in _ZONES:
        raise ProfileInvalid(f"there is no time zone {zone!r}: use for example UTC or Europe/Berlin", param="time_zone")
    if len(profile.address) > _ADDRESS_CHARS_MAX:
        raise ProfileInvalid(f"an address must have at most {_ADDRESS_CHARS_MAX} characters", param="address")
    if not profile.tax_name:
        raise ProfileInvalid("a tax needs a name, for example VAT", param="tax_name")
    try:
        profile.clean_fields(exclude=["tenant", "updated_at", "tax_rate"])
    except ValidationError as error:
        name, messages = next(iter(error.message_dict.items()))
        raise ProfileInvalid(f"{name}: {messages[0]}", param=name) from error
    for name in FIELDS:
        if isinstance(text := getattr(profile, name), str) and (found := text_unstorable_at(text)):
            raise ProfileInvalid(f"{name} contains {found.code_point}, which can't be stored", param=name)


@cached_by_revision
def zone_of(tenant_id: UUID) -> str:
    """Return the time zone of a tenant's months."""
    return BillingProfile.objects.filter(tenant=tenant_id).values_list("time_zone", flat=True).first() or "UTC"


def month_of(now: datetime, zone: str) -> date:
    """Return the first day of the month of `now` in `zone`."""
    return now.astimezone(ZoneInfo(zone)).date().replace(day=1)


def month_begin(now: datetime, zone: str) -> datetime:
    """Return the midnight in `zone` that began the month of `now`."""
    local = now.astimezone(ZoneInfo(zone))
    return datetime(local.year, local.month, 1, tzinfo=local.tzinfo).astimezone(UTC)


def month_end(now: datetime, zone: str) -> datetime:
    """Return the first midnight after `now` that begins a month in `zone`."""
    return month_begin(month_begin(now, zone) + timedelta(days=32), zone)
