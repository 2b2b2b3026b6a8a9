"""What is agreed with a tenant for a time: prices of its own, a discount, a minimum a month."""

import uuid
from datetime import datetime
from decimal import Decimal

from django.db import IntegrityError, transaction

from billing.money import AMOUNT_MICROS_MAX, MICROS, from_micros
from billing.pricing.models import Contract, PriceBook
from core.errors import DomainError
from tenants.models import Tenant


class ContractInvalid(DomainError):
    """These terms can't be agreed on."""

    code = "contract_invalid"


class ContractBackdated(DomainError):
    """A contract begins and ends no earlier than now: what was used before has its prices."""

    code, http_status = "contract_backdated", 409


class ContractOverlaps(DomainError):
    """The tenant has a contract in this time: end it first."""

    code, http_status = "contract_overlaps", 409


class ContractNotFound(DomainError):
    """The tenant has no contract that goes on."""

    code, http_status = "contract_not_found", 404


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
    """Agrees with a tenant from `starts_at` (now, if None) until before `ends_at`. Terms never change.

    Raises `ContractInvalid`, `ContractBackdated`, `ContractOverlaps`.
    """
    starts_at = now if starts_at is None else starts_at
    if not discount.is_finite() or not 0 <= discount <= 1 or discount != round(discount, 6):
        raise ContractInvalid(
            f"a discount is a share from 0 to 1 with at most six places; {discount} is not", param="discount"
        )
    if not 0 <= minimum_micros <= AMOUNT_MICROS_MAX:
        raise ContractInvalid("a month's minimum is 0 or more, and below a billion", param="minimum")
    if price_book is not None and (price_book.tenant_id, price_book.currency) != (tenant.pk, tenant.currency):
        raise ContractInvalid(f"{price_book} holds no prices of {tenant} in {tenant.currency}", param="price_book")
    if starts_at < now:
        raise ContractBackdated(f"{starts_at.isoformat()} is past: what was used since then has its prices already")
    if ends_at is not None and ends_at <= starts_at:
        raise ContractInvalid("a contract ends later than it begins", param="ends_at")
    try:
        with transaction.atomic():
            return Contract.objects.create(
                id=uuid.uuid4(),
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
    """Ends the tenant's last contract at `ends_at` (now, if None); one can only come sooner than was agreed.

    Raises `ContractNotFound`, `ContractBackdated`, `ContractInvalid`.
    """
    ends_at = now if ends_at is None else ends_at
    contract = Contract.objects.filter(tenant=tenant).order_by("-starts_at").first()
    if contract is None or (contract.ends_at is not None and contract.ends_at <= now):
        raise ContractNotFound(f"{tenant} has no contract that goes on")
    if ends_at < now:
        raise ContractBackdated(f"{ends_at.isoformat()} is past: what was used since then has its prices already")
    if ends_at <= contract.starts_at:
        raise ContractInvalid(f"the contract begins {contract.starts_at.isoformat()}: it ends later", param="ends_at")
    if contract.ends_at is not None and ends_at > contract.ends_at:
        raise ContractInvalid(
            f"the contract ends {contract.ends_at.isoformat()} already: make another from then on", param="ends_at"
        )
    contract.ends_at = ends_at
    contract.save(update_fields=["ends_at"])
    return contract


def contract_at(*, tenant: Tenant, now: datetime) -> Contract | None:
    """The one in force at an instant."""
    begun = Contract.objects.filter(tenant=tenant, starts_at__lte=now).order_by("-starts_at").first()
    return begun if begun and (begun.ends_at is None or now < begun.ends_at) else None


def minimum_of(amount: Decimal) -> int:
    """Micro-units of a month's minimum as people write it. Raises `ContractInvalid`."""
    if not amount.is_finite() or not 0 <= amount <= from_micros(AMOUNT_MICROS_MAX) or amount != round(amount, 6):
        raise ContractInvalid(
            f"a month's minimum is 0 to a billion, with at most six places; {amount} is not", param="minimum"
        )
    return int(amount * MICROS)


def terms_said(contract: Contract) -> dict[str, str]:
    """For the audit log, and for people."""
    return {
        "starts_at": contract.starts_at.isoformat(),
        "ends_at": contract.ends_at.isoformat() if contract.ends_at else "",
        "discount": f"{contract.discount.normalize():f}",
        "minimum": f"{from_micros(contract.minimum_micros):.6f} {contract.tenant.currency}",
        "price_book": str(contract.price_book or ""),
    }
