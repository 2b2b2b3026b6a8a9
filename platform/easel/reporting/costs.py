"""Sums of charges by group, read from the schema `reporting` only."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import starmap
from typing import Any

from django.db import connection
from psycopg import sql

from core.errors import DomainError
from core.tenant_scope import platform_scope
from easel.reporting.exports import Span

# SQL of each group. Labels are groups too, written `label:department`.
GROUPS = {
    "day": "day::text",
    "tenant": "tenant",
    "project": "project",
    "model": "model",
    "version": "model_version",
    "adapter": "adapter",
    "quality": "quality",
    "tier": "tier",
    "resolution": "resolution",
    "key": "api_key",
    "meter": "meter",
    "pool": "pool",
}
GROUPS_MAX = 4
# Storage and what nobody prices have no more than these.
UNPRICED_GROUPS = ("project", "model", "adapter", "tier", "day")
_COLUMNS = "day, project, model, adapter, tier, meter, charges, quantity, amount_micros, list_micros"
_UNPRICED = """
    UNION ALL SELECT day, project, model, adapter, tier, meter, 0, quantity, 0, 0 FROM reporting.unpriced WHERE {}
"""
_LABEL = re.compile(r"label:([^\x00]{1,64})")


class UnknownGroup(DomainError, code="unknown_group", type="invalid_request_error"):
    """Costs have no group of this name.

    Group by one of the names that the message lists.
    """


@dataclass(frozen=True, slots=True)
class CostRow:
    """Charges of a group; `group` has the value of each name in `group_by`, empty if it has none."""

    group: dict[str, str]
    charges: int
    requests: Decimal
    image_units: Decimal
    gpu_seconds: Decimal
    storage_gb_seconds: Decimal
    amount_micros: int
    list_micros: int


def costs(
    span: Span,
    *,
    group_by: Sequence[str],
    currency: str,
    label: tuple[str, str] | None = None,
    order: str = "group",
    with_unpriced: bool = False,
) -> list[CostRow]:
    """Sum charges per group over the days of `span`, of all projects or those with a `label` (name, value).

    The rows are in the order of the groups, or of what they were charged, the highest first; they sum to what the
    ledger earned. `with_unpriced` adds quantities that were not charged; it knows the groups that those have too, of
    `UNPRICED_GROUPS`, and no labels. Raises `UnknownGroup`.
    """
    keys = [_key(name) for name in group_by]
    numbers = [sql.SQL(str(place)) for place in range(1, len(keys) + 1)]
    query = sql.SQL("""
        SELECT {keys} coalesce(sum(charges), 0)::bigint,
               coalesce(sum(quantity) FILTER (WHERE meter = 'request'), 0),
               coalesce(sum(quantity) FILTER (WHERE meter = 'image_unit'), 0),
               coalesce(sum(quantity) FILTER (WHERE meter = 'gpu_second'), 0),
               coalesce(sum(quantity) FILTER (WHERE meter = 'storage_gb_second'), 0),
               coalesce(sum(amount_micros), 0)::bigint AS amount, coalesce(sum(list_micros), 0)::bigint
          FROM (SELECT {columns} FROM reporting.costs
                 WHERE day BETWEEN {start} AND {end} AND currency = {currency} AND {of_tenant} AND {of_label}
                {unpriced}) AS used
        {grouped} ORDER BY {order}
    """).format(
        columns=sql.SQL(_COLUMNS if with_unpriced else "*"),
        unpriced=sql.SQL(_UNPRICED).format(span.condition("used_at", "tenant")) if with_unpriced else sql.SQL(""),
        keys=sql.SQL("").join(sql.SQL("{}, ").format(key) for key in keys),
        start=span.start,
        end=span.end,
        currency=currency,
        of_tenant=span.of_tenant("tenant"),
        of_label=label_is(label),
        grouped=sql.SQL("GROUP BY {}").format(sql.SQL(", ").join(numbers)) if keys else sql.SQL(""),
        order=sql.SQL(", ").join(
            [sql.SQL("amount DESC"), *numbers] if order == "amount" else numbers or [sql.SQL("1")]
        ),
    )
    return [CostRow(dict(zip(group_by, row, strict=False)), *row[len(keys) :]) for row in rows_of(query)]


@dataclass(frozen=True, slots=True)
class InvoiceRow:
    """An invoice's part of a cost; `number` is None for the part that no final statement has yet."""

    number: str | None
    amount_micros: int


def invoices(span: Span, *, currency: str, label: tuple[str, str] | None = None) -> list[InvoiceRow]:
    """Sum the billed use of the days by invoice, from `reporting.focus`, without taxes and adjustments."""
    query = sql.SQL("""
        SELECT "InvoiceId", round(sum("BilledCost") * 1000000)::bigint FROM reporting.focus
         WHERE {days} AND "BillingCurrency" = {currency} AND "ChargeCategory" = 'Usage' AND {of_label}
         GROUP BY 1 ORDER BY length("InvoiceId"), 1
    """).format(
        days=span.condition("ChargePeriodStart", "BillingAccountId"),
        currency=currency,
        of_label=label_is(label, "Tags"),
    )
    return list(starmap(InvoiceRow, rows_of(query)))


@dataclass(frozen=True, slots=True)
class UnpricedRow:
    """Sum of a meter's quantities without a price, and the number of their records."""

    meter: str
    quantity: Decimal
    records: int


def unpriced(span: Span, *, label: tuple[str, str] | None = None) -> list[UnpricedRow]:
    """Sum by meter what was measured on the days and not charged."""
    query = sql.SQL("""
        SELECT meter, sum(quantity), count(*) FROM reporting.unpriced WHERE {days} AND {of_label} GROUP BY 1 ORDER BY 1
    """).format(days=span.condition("used_at", "tenant"), of_label=label_is(label))
    return list(starmap(UnpricedRow, rows_of(query)))


def label_values(name: str) -> list[str]:
    """List the values that a label of projects has, or had."""
    query = sql.SQL("SELECT DISTINCT labels ->> {0} FROM reporting.costs WHERE labels ? {0} ORDER BY 1")
    return [value for (value,) in rows_of(query.format(name))]


def label_is(label: tuple[str, str] | None, column: str = "labels") -> sql.Composed:
    """Return the SQL condition for rows with a label; an empty value selects projects without the label."""
    if label is None:
        return sql.SQL("true").format()
    return sql.SQL("coalesce({} ->> {}, '') = {}").format(sql.Identifier(column), *label)


def rows_of(query: sql.Composable) -> list[tuple[Any, ...]]:
    # The views are the owner's, whom row-level security leaves out: a query of them must name its tenant itself.
    with platform_scope(), connection.cursor() as cursor:
        cursor.execute(query)
        return list(cursor.fetchall())


def _key(name: str) -> sql.Composable:
    if label := _LABEL.fullmatch(name):
        return sql.SQL("coalesce(labels ->> {}, '')").format(label[1])
    if name not in GROUPS:
        known = ", ".join([*GROUPS, "label:NAME"])
        raise UnknownGroup(f"costs can't be grouped by {name!r}; the groups are {known}", param="group_by")
    return sql.SQL(GROUPS[name])
