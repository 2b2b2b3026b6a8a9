"""Reads statements and their charges."""

import uuid

from django.db.models import QuerySet

from billing.invoices.models import Statement, StatementLine
from billing.usage.models import Charge
from core.errors import DomainError
from core.pages import page_after
from tenants.models import Tenant


class StatementNotFound(DomainError, code="statement_not_found", type="invalid_request_error", http_status=404):
    """There is no such statement.

    Take the id from `GET /v1/statements`.
    """


def statements_page(*, tenant: Tenant, limit: int, after: uuid.UUID | None) -> tuple[list[Statement], bool]:
    """Return documents after the one named `after`, latest first, and True if more follow; or `StatementNotFound`."""
    last = statement_get(tenant=tenant, statement_id=after) if after else None
    rows = Statement.objects.filter(tenant=tenant)
    return page_after(rows, order=("-period_start", "-made_at", "-id"), after=last, limit=limit)


def statement_get(*, tenant: Tenant, statement_id: uuid.UUID) -> Statement:
    """Return one of a tenant's statements. Raises `StatementNotFound`."""
    if found := Statement.objects.filter(tenant=tenant, pk=statement_id).first():
        return found
    raise StatementNotFound


def statement_by_id(statement_id: uuid.UUID) -> Statement:
    """Return any tenant's statement, for operators. Raises `StatementNotFound`."""
    if found := Statement.objects.select_related("tenant").filter(pk=statement_id).first():
        return found
    raise StatementNotFound(f"there is no statement {statement_id}: `easel statement list TENANT` shows them")


def statement_numbered(number: int, *, tenant: str | None) -> Statement:
    """Return the final document with this number, of the tenant with this slug or of any; or `StatementNotFound`."""
    if found := Statement.objects.filter(number=number, **({"tenant__slug": tenant} if tenant else {})).first():
        return found
    raise StatementNotFound(f"there is no final statement or credit note {number}", param="invoice")


def line_get(statement: Statement, *, position: int) -> StatementLine:
    """Return a statement's line. Raises `StatementNotFound`."""
    if found := statement.lines.filter(position=position).first():
        return found
    raise StatementNotFound(f"the statement has no line {position}")


def charges_page(charges: QuerySet[Charge], *, limit: int, after: uuid.UUID | None) -> tuple[list[Charge], bool]:
    """Return charges by their ids, those after the id `after`; and True if more follow."""
    rows = charges.select_related("usage_record", "rate__price_book")
    return page_after(rows, order=("id",), after=Charge(id=after) if after else None, limit=limit)
