"""Sums of a tenant's use and its cost, priced or not, read from the schema `reporting` only."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from psycopg import sql

from easel.reporting.costs import rows_of
from easel.reporting.exports import Span

# Columns to group by. Storage has no model, adapter or tier.
GROUPS = ("project", "model", "adapter", "tier", "day")
_USAGE = """
    WITH used AS (
             SELECT day, project, model, adapter, tier, meter, quantity, amount_micros
               FROM reporting.costs WHERE day BETWEEN {start} AND {end} AND {of_tenant}
             UNION ALL
             SELECT day, project, model, adapter, tier, meter, quantity, 0
               FROM reporting.unpriced WHERE {used}
         )
    SELECT {keys},
           coalesce(sum(quantity) FILTER (WHERE meter = 'request'), 0)::bigint,
           coalesce(sum(quantity) FILTER (WHERE meter = 'image_unit'), 0),
           coalesce(sum(quantity) FILTER (WHERE meter = 'gpu_second'), 0),
           coalesce(sum(quantity) FILTER (WHERE meter = 'storage_gb_second'), 0),
           sum(amount_micros)::bigint
      FROM used GROUP BY {keys} ORDER BY {keys}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """Use and cost of a group; `group` has the value of each name in `group_by`."""

    group: dict[str, str]
    requests: int
    image_units: Decimal
    gpu_seconds: Decimal
    storage_gb_seconds: Decimal
    cost_micros: int


def usage(span: Span, *, group_by: Sequence[str]) -> list[UsageRow]:
    """Sums use per group over the days of `span`; `group_by` are names of `GROUPS`."""
    query = sql.SQL(_USAGE).format(
        start=sql.Literal(span.start),
        end=sql.Literal(span.end),
        of_tenant=span.of_tenant("tenant"),
        used=span.condition("used_at", "tenant"),
        keys=sql.SQL(", ").join(map(sql.Identifier, group_by)),
    )
    count = len(group_by)
    return [
        UsageRow(
            group={name: str(value) for name, value in zip(group_by, row[:count], strict=True)},
            requests=row[count],
            image_units=row[count + 1],
            gpu_seconds=row[count + 2],
            storage_gb_seconds=row[count + 3],
            cost_micros=row[count + 4],
        )
        for row in rows_of(query)
    ]
