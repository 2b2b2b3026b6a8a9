"""Reads of statements, and of the charges behind them."""

import uuid
from typing import Any

from django.db.models import Q, QuerySet

from billing.models import Charge, Statement, StatementLine
from core.errors import DomainError
from tenants.models import Tenant


class StatementNotFound(DomainError):
    """There is no such statement."""

    code, type, http_status = "statement_not_found", "invalid_request_error", 404


def statements_page(*, tenant: Tenant, limit: int, after: uuid.UUID | None) -> tuple[list[Statement], bool]:
    """Statements and credit notes, the latest first, after the one named `after`; and whether there are more."""
    rows = Statement.objects.filter(tenant=tenant).order_by("-period_start", "-made_at", "-id")
    if after is not None:
        last = statement_get(tenant=tenant, statement_id=after)
        rows = rows.filter(
            Q(period_start__lt=last.period_start)
            | Q(period_start=last.period_start, made_at__lt=last.made_at)
            | Q(period_start=last.period_start, made_at=last.made_at, id__lt=last.id)
        )
    found = list(rows[: limit + 1])
    return found[:limit], len(found) > limit


def statement_get(*, tenant: Tenant, statement_id: uuid.UUID) -> Statement:
    """Raises `StatementNotFound`."""
    found = Statement.objects.filter(tenant=tenant, pk=statement_id).first()
    if found is None:
        raise StatementNotFound
    return found


def statement_with_id(statement_id: uuid.UUID) -> Statement:
    """Any tenant's, for operators. Raises `StatementNotFound`."""
    found = Statement.objects.select_related("tenant").filter(pk=statement_id).first()
    if found is None:
        raise StatementNotFound(f"there is no statement {statement_id}: `easel statement list TENANT` shows them")
    return found


def statement_numbered(number: int, *, tenant: str | None) -> Statement:
    """The final statement or credit note of this number, of the tenant with this slug or of any. Raises
    `StatementNotFound`.
    """
    found = Statement.objects.filter(number=number, **({"tenant__slug": tenant} if tenant else {})).first()
    if found is None:
        raise StatementNotFound(f"there is no final statement or credit note {number}", param="invoice")
    return found


def line_get(statement: Statement, *, position: int) -> StatementLine:
    """Raises `StatementNotFound`."""
    found = statement.lines.filter(position=position).first()
    if found is None:
        raise StatementNotFound(f"the statement has no line {position}")
    return found


def charges_page(charges: QuerySet[Any], *, limit: int, after: uuid.UUID | None) -> tuple[list[Charge], bool]:
    """Charges by their ids, those after the one named `after`; and whether there are more."""
    rows = charges.select_related("usage_record", "rate__price_book").order_by("id")
    if after is not None:
        rows = rows.filter(id__gt=after)
    found = list(rows[: limit + 1])
    return found[:limit], len(found) > limit
