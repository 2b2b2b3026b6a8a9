"""Counts held and charged amounts towards budgets, by the month of the tenant's time zone (`../budgets/README.md`).

A hold's own query says if the tenant has budgets, so that tenants without any pay nothing for them.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from billing.ledger.models import Transaction
from billing.money import format_micros
from billing.profiles import month_end, month_of, zone_of
from core.errors import DomainError
from tenants.models import ApiKey, Project, Tenant


class BudgetExceeded(
    DomainError, code="budget_exceeded", type="insufficient_quota", http_status=429, passes_later=True
):
    """This request may cost more than a budget has left.

    Raise the budget (`PUT /v1/budgets`), or wait until it begins again. Repeating the request doesn't help.
    """


_HOLD = """
WITH month AS (
    INSERT INTO billing_budgetmonth AS month (budget_id, month, spent_micros, held_micros)
    SELECT id, %(month)s, 0, %(amount)s FROM billing_budget
     WHERE tenant_id = %(tenant)s AND (project_id IS NULL OR project_id = %(project)s)
       AND (api_key_id IS NULL
            OR api_key_id IN (SELECT id FROM tenants_apikey WHERE id = %(family)s OR first_key_id = %(family)s))
        ON CONFLICT (budget_id, month) DO UPDATE SET held_micros = month.held_micros + excluded.held_micros
    RETURNING id, budget_id, spent_micros, held_micros
), held AS (
    INSERT INTO billing_budgethold (budget_month_id, reference, amount_micros)
    SELECT id, %(reference)s, %(amount)s FROM month
)
SELECT budget.amount_micros, budget.amount_micros - spent_micros - held_micros + %(amount)s AS room,
       project.slug, api_key.key_id
  FROM month JOIN billing_budget AS budget ON budget.id = month.budget_id
       LEFT JOIN tenants_project AS project ON project.id = budget.project_id
       LEFT JOIN tenants_apikey AS api_key ON api_key.id = budget.api_key_id
 WHERE budget.hard_stop AND spent_micros + held_micros > budget.amount_micros
 ORDER BY room LIMIT 1
"""

# Records every threshold, in percent, that the months in `moved` have reached and that is not recorded yet.
_CROSS = """
INSERT INTO billing_budgetcrossing (budget_month_id, percent, spent_micros, crossed_at)
SELECT moved.id, percent, moved.spent_micros, %(now)s
  FROM moved JOIN billing_budget AS budget ON budget.id = moved.budget_id
       CROSS JOIN unnest(ARRAY[50, 80, 100]) AS percent
 WHERE moved.spent_micros > 0 AND moved.spent_micros::numeric * 100 >= budget.amount_micros::numeric * percent
    ON CONFLICT DO NOTHING
"""

_SETTLE = f"""
WITH over AS (
    DELETE FROM billing_budgethold WHERE reference = %(reference)s RETURNING budget_month_id, amount_micros
), moved AS (
    UPDATE billing_budgetmonth AS month
       SET held_micros = month.held_micros - over.amount_micros, spent_micros = month.spent_micros + %(spent)s
      FROM over WHERE month.id = over.budget_month_id
    RETURNING month.id, month.budget_id, month.spent_micros
)
{_CROSS}"""  # noqa: S608 - built of constants

_SPEND = f"""
WITH moved AS (
    INSERT INTO billing_budgetmonth AS month (budget_id, month, spent_micros, held_micros)
    SELECT id, %(month)s, %(amount)s, 0 FROM billing_budget
     WHERE tenant_id = %(tenant)s AND api_key_id IS NULL AND (project_id IS NULL OR project_id = %(project)s)
        ON CONFLICT (budget_id, month) DO UPDATE SET spent_micros = month.spent_micros + excluded.spent_micros
    RETURNING id, budget_id, spent_micros
)
{_CROSS}"""  # noqa: S608 - built of constants

_CROSS_ONE = f"""
WITH moved AS (
    SELECT id, budget_id, spent_micros FROM billing_budgetmonth WHERE budget_id = %(budget)s AND month = %(month)s
)
{_CROSS}"""  # noqa: S608 - built of constants


def budgets_hold(
    *,
    tenant: Tenant,
    project: Project | None,
    api_key: ApiKey | None,
    amount_micros: int,
    reference: UUID,
    now: datetime,
) -> None:
    """Hold an amount of every budget that a job of this project and key counts towards; in the ledger's transaction.

    Raises `BudgetExceeded` if a budget with a hard stop has less left; the transaction must then not commit.
    """
    zone = zone_of(tenant.pk)
    owner: dict[str, Any] = {"tenant": tenant.pk, "project": project and project.pk}
    owner["family"] = api_key and api_key.family_id
    hold: dict[str, Any] = {"amount": amount_micros, "reference": reference, "month": month_of(now, zone)}
    with connection.cursor() as cursor:
        cursor.execute(_HOLD, {**owner, **hold})
        exceeded = cursor.fetchone()
    if exceeded is None:
        return
    budget_micros, room, project_slug, key_id = exceeded
    amounts = (amount_micros, budget_micros, max(0, room))
    cost, budget, left = (format_micros(micros, tenant.currency) for micros in amounts)
    of_key = f"the budget of the API key {key_id}" if key_id else "your account's budget"
    name = f"the budget of the project {project_slug!r}" if project_slug else of_key
    raise BudgetExceeded(
        f"this request may cost up to {cost}, and {left} is left of {name} of {budget} a month;"
        f" the next month begins at {month_end(now, zone).isoformat()}"
    )


def budgets_settle(posted: Transaction, *, spent_micros: int) -> None:
    """Release what a job held of its budgets and count what it was charged; in the ledger's transaction."""
    with connection.cursor() as cursor:
        cursor.execute(_SETTLE, {"reference": posted.reference, "spent": spent_micros, "now": posted.created_at})


def budgets_spend(posted: Transaction, project: Project | None, *, amount_micros: int) -> None:
    """Count a charge, or a refund if it is below zero, that had no hold: it is never refused, and belongs to no key."""
    owner: dict[str, Any] = {"tenant": posted.tenant_id, "project": project and project.pk}
    now, zone = posted.created_at, zone_of(posted.tenant_id)
    with connection.cursor() as cursor:
        cursor.execute(_SPEND, {**owner, "month": month_of(now, zone), "amount": amount_micros, "now": now})


def crossings_record(*, tenant: Tenant, budget_id: UUID, now: datetime) -> None:
    """Record the thresholds that a budget has reached in the month of `now`."""
    with connection.cursor() as cursor:
        cursor.execute(_CROSS_ONE, {"budget": budget_id, "month": month_of(now, zone_of(tenant.pk)), "now": now})
