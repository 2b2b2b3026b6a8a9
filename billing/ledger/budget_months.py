"""What counts towards budgets: what is held for jobs, and what was charged, by the month of the tenant's time zone.

The ledger counts here, in its own transactions, once it has the tenant's accounts: so a tenant's counts take turns, and
what a budget has left is what is left after everything that was admitted before. A job counts in the month in which it
was admitted, whatever month it ends in; what is charged without a hold counts in the month in which it is charged.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from billing.budgets.models import Budget
from billing.money import format_micros
from billing.profiles import month_end, month_of, zone_of
from core.errors import DomainError
from tenants.models import ApiKey, Project, Tenant

THRESHOLDS = (50, 80, 100)  # percent of the amount


class BudgetExceeded(DomainError):
    """This request may cost more than a budget has left."""

    code, type, http_status = "budget_exceeded", "insufficient_quota", 429


_HOLD = """
WITH month AS (
    INSERT INTO billing_budgetmonth AS month (budget_id, month, spent_micros, held_micros)
    SELECT id, %(month)s, 0, %(amount)s FROM billing_budget
     WHERE tenant_id = %(tenant)s AND (project_id IS NULL OR project_id = %(project)s)
       AND (api_key_id IS NULL OR api_key_id = %(key)s)
        ON CONFLICT (budget_id, month) DO UPDATE SET held_micros = month.held_micros + excluded.held_micros
    RETURNING id, budget_id, spent_micros, held_micros
), held AS (
    INSERT INTO billing_budgethold (budget_month_id, reference, amount_micros)
    SELECT id, %(reference)s, %(amount)s FROM month
)
SELECT budget.id, budget.amount_micros - spent_micros - held_micros + %(amount)s AS room
  FROM month JOIN billing_budget AS budget ON budget.id = month.budget_id
 WHERE budget.hard_stop AND spent_micros + held_micros > budget.amount_micros
 ORDER BY room LIMIT 1
"""

# Every threshold that the months in `moved` have reached and that isn't written down.
_CROSS = """
INSERT INTO billing_budgetcrossing (budget_month_id, percent, spent_micros, crossed_at)
SELECT moved.id, percent, moved.spent_micros, %(now)s
  FROM moved JOIN billing_budget AS budget ON budget.id = moved.budget_id CROSS JOIN unnest(%(thresholds)s) AS percent
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
{_CROSS}"""  # noqa: S608 - of constants alone

_SPEND = f"""
WITH moved AS (
    INSERT INTO billing_budgetmonth AS month (budget_id, month, spent_micros, held_micros)
    SELECT id, %(month)s, %(amount)s, 0 FROM billing_budget
     WHERE tenant_id = %(tenant)s AND api_key_id IS NULL AND (project_id IS NULL OR project_id = %(project)s)
        ON CONFLICT (budget_id, month) DO UPDATE SET spent_micros = month.spent_micros + excluded.spent_micros
    RETURNING id, budget_id, spent_micros
)
{_CROSS}"""  # noqa: S608 - of constants alone

_CROSS_ONE = f"""
WITH moved AS (
    SELECT id, budget_id, spent_micros FROM billing_budgetmonth WHERE budget_id = %(budget)s AND month = %(month)s
)
{_CROSS}"""  # noqa: S608 - of constants alone


def budgets_hold(
    *,
    tenant: Tenant,
    project: Project | None,
    api_key: ApiKey | None,
    amount_micros: int,
    reference: UUID,
    now: datetime,
) -> None:
    """Holds an amount of every budget that a job of a project and key counts to; in the ledger's transaction.

    Raises `BudgetExceeded` where a hard stop has less left, after which the transaction must not commit.
    """
    zone = zone_of(tenant.pk)
    whose: dict[str, Any] = {"tenant": tenant.pk, "project": project and project.pk, "key": api_key and api_key.pk}
    with connection.cursor() as cursor:
        what: dict[str, Any] = {"amount": amount_micros, "reference": reference, "month": month_of(now, zone)}
        cursor.execute(_HOLD, {**whose, **what})
        over = cursor.fetchone()
    if over is None:
        return
    budget_id, room = over
    budget = Budget.objects.select_related("project", "api_key").get(pk=budget_id)
    asked, whole, left = (
        format_micros(micros, tenant.currency) for micros in (amount_micros, budget.amount_micros, max(0, room))
    )
    raise BudgetExceeded(
        f"this request may cost up to {asked}, and {left} is left of {owner_of(budget)} of {whole} a month;"
        f" the next month begins at {month_end(now, zone).isoformat()}"
    )


def budgets_settle(reference: UUID, *, spent_micros: int, now: datetime) -> None:
    """Gives back what a job held of its budgets and counts what it was charged; in the ledger's transaction."""
    with connection.cursor() as cursor:
        fields: dict[str, Any] = {"reference": reference, "spent": spent_micros}
        cursor.execute(_SETTLE, {**fields, "now": now, "thresholds": list(THRESHOLDS)})


def budgets_spend(*, tenant: Tenant, project: Project | None, amount_micros: int, now: datetime) -> None:
    """Counts what was charged, or given back if it is below zero, without a hold: never refused, and no key's."""
    fields: dict[str, Any] = {"tenant": tenant.pk, "project": project and project.pk, "amount": amount_micros}
    with connection.cursor() as cursor:
        month = month_of(now, zone_of(tenant.pk))
        cursor.execute(_SPEND, {**fields, "month": month, "now": now, "thresholds": list(THRESHOLDS)})


def crossings_find(budget: Budget, *, now: datetime) -> None:
    """Writes down the thresholds that a budget has reached in the month of `at`."""
    with connection.cursor() as cursor:
        fields: dict[str, Any] = {"budget": budget.pk, "month": month_of(now, zone_of(budget.tenant_id))}
        cursor.execute(_CROSS_ONE, {**fields, "now": now, "thresholds": list(THRESHOLDS)})


def owner_of(budget: Budget) -> str:
    """As a refusal says it."""
    if budget.project is not None:
        return f"the budget of the project {budget.project.slug!r}"
    return "your account's budget" if budget.api_key is None else f"the budget of the API key {budget.api_key.key_id}"
