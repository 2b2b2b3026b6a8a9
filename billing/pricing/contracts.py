"""Contracts: a tenant's own prices, a discount and a monthly minimum, for a limited time."""

from datetime import datetime
from decimal import Decimal

from django.db import IntegrityError, transaction

from billing.money import AMOUNT_MICROS_MAX, format_micros, from_micros, plain, to_micros
from billing.pricing.models import Contract, PriceBook
from core.errors import DomainError
from tenants.models import Tenant


class ContractInvalid(DomainError, code="contract_invalid"):
    """The contract's terms are invalid.

    Correct the terms that the message names.
    """


class ContractBackdated(DomainError, code="contract_backdated", http_status=409):
    """A contract can't begin or end in the past: usage until now is already priced.

    Begin or end the contract in the future.
    """


class ContractOverlaps(DomainError, code="contract_overlaps", http_status=409):
    """The tenant already has a contract in this time: end it first.

    End the running contract first, or begin the new one after it.
    """


class ContractNotFound(DomainError, code="contract_not_found", http_status=404):
    """The tenant has no running contract.

    List the tenant's contracts; there may be none that runs.
    """


def contract_make(
    *,
    tenant: Tenant,
    discount: Decimal = Decimal(0),
    minimum_micros: int = 0,
    price_book: PriceBook | None = None,
    starts_at: datetime | None = None,
    ends_at: datetime | None = None,
    now: datetime,
) -> Contract:
    """Make a contract from `starts_at` (default: now) until just before `ends_at`. Its terms never change."""
    starts_at = starts_at or now
    if not discount.is_finite() or not 0 <= discount <= 1 or discount != round(discount, 6):
        fault = f"a discount must be between 0 and 1 with at most six decimal places, unlike {discount}"
        raise ContractInvalid(fault, param="discount")
    if not 0 <= minimum_micros <= AMOUNT_MICROS_MAX:
        raise ContractInvalid("a monthly minimum must be between 0 and a billion", param="minimum")
    if price_book is not None and (price_book.tenant_id, price_book.currency) != (tenant.pk, tenant.currency):
        raise ContractInvalid(f"{price_book} has no prices of {tenant} in {tenant.currency}", param="price_book")
    if starts_at < now:
        raise ContractBackdated(f"{starts_at.isoformat()} is past: usage since then is already priced")
    if ends_at is not None and ends_at <= starts_at:
        raise ContractInvalid("a contract must end later than it begins", param="ends_at")
    try:
        with transaction.atomic():
            return Contract.objects.create(
                tenant=tenant,
                price_book=price_book,
                discount=discount,
                minimum_micros=minimum_micros,
                starts_at=starts_at,
                ends_at=ends_at,
                created_at=now,
            )
    except IntegrityError as error:
        raise ContractOverlaps from error


def contract_end(*, tenant: Tenant, ends_at: datetime | None = None, now: datetime) -> Contract:
    """End the tenant's last contract at `ends_at` (default: now), which can't be later than agreed."""
    ends_at = ends_at or now
    contract = Contract.objects.filter(tenant=tenant).order_by("-starts_at").first()
    if contract is None or (contract.ends_at is not None and contract.ends_at <= now):
        raise ContractNotFound(f"{tenant} has no running contract")
    if ends_at < now:
        raise ContractBackdated(f"{ends_at.isoformat()} is past: usage since then is already priced")
    if ends_at <= contract.starts_at:
        fault = f"the contract begins {contract.starts_at.isoformat()}: it must end later"
        raise ContractInvalid(fault, param="ends_at")
    if contract.ends_at is not None and ends_at > contract.ends_at:
        fault = f"the contract ends {contract.ends_at.isoformat()} already: make another one from then on"
        raise ContractInvalid(fault, param="ends_at")
    contract.ends_at = ends_at
    contract.save(update_fields=["ends_at"])
    return contract


def contract_at(*, tenant: Tenant, now: datetime) -> Contract | None:
    """Return the contract in force at an instant."""
    begun = Contract.objects.filter(tenant=tenant, starts_at__lte=now).order_by("-starts_at").first()
    return begun if begun and (begun.ends_at is None or now < begun.ends_at) else None


def minimum_of(amount: Decimal) -> int:
    """Return a monthly minimum in micro-units. Raises `ContractInvalid`."""
    if not amount.is_finite() or not 0 <= amount <= from_micros(AMOUNT_MICROS_MAX) or amount != round(amount, 6):
        raise ContractInvalid(
            f"a monthly minimum must be between 0 and a billion with at most six decimal places, unlike {amount}",
            param="minimum",
        )
    return to_micros(amount)


def contract_details(contract: Contract) -> dict[str, str]:
    """Return a contract's terms as texts, for the audit log and for people."""
    return {
        "starts_at": contract.starts_at.isoformat(),
        "ends_at": contract.ends_at.isoformat() if contract.ends_at else "",
        "discount": plain(contract.discount),
        "minimum": format_micros(contract.minimum_micros, contract.tenant.currency),
        "price_book": str(contract.price_book or ""),
    }
