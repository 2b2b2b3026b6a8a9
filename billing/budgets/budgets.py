"""Sets, removes and reads budgets: the monthly amounts that a tenant, a project or a key means to spend."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, OuterRef, Q, Subquery, Sum

from billing.budgets.models import Budget, BudgetCrossing, BudgetHold, BudgetMonth
from billing.ledger.accounts import budgeted_set
from billing.ledger.budget_months import crossings_record
from billing.ledger.models import Adjustment, Entry, LedgerAccount
from billing.ledger.models import Transaction as Movement
from billing.money import AMOUNT_MICROS_MAX
from billing.profiles import month_begin, month_end, month_of, zone_of
from billing.usage.models import Charge
from core.errors import DomainError
from tenants.keys import family_keys
from tenants.models import ApiKey, Project, Tenant


class BudgetInvalid(DomainError, code="budget_invalid"):
    """A budget must belong to an account, or to one of its projects or keys.

    Name a project or a key, not both, and an amount in the account's currency.
    """


class BudgetNotFound(DomainError, code="budget_not_found", http_status=404):
    """There is no such budget.

    Take the id from `GET /v1/budgets`.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetStatus:
    """A budget with its counts in the month that ends at `resets_at`, and the thresholds crossed, in percent."""

    budget: Budget
    spent_micros: int
    held_micros: int
    crossed: tuple[int, ...]
    resets_at: datetime

    @property
    def left_micros(self) -> int:
        return max(0, self.budget.amount_micros - self.spent_micros - self.held_micros)


@transaction.atomic
def budget_set(
    *,
    tenant: Tenant,
    project: Project | None = None,
    api_key: ApiKey | None = None,
    amount_micros: int,
    hard_stop: bool,
    unfinished: Callable[[], Iterable[UUID]],
    now: datetime,
) -> Budget:
    """Create or change the budget of a tenant, a project or a key; it limits the jobs admitted from now on.

    A new budget counts its month's charges so far, and the holds of the `unfinished` jobs, asked once the balance is
    locked. After a change of the amount, thresholds that are no longer reached will be notified again.
    """
    if not 0 <= amount_micros <= AMOUNT_MICROS_MAX:
        raise BudgetInvalid(f"a budget must be between 0 and {AMOUNT_MICROS_MAX} micros", param="amount_micros")
    if project is not None and api_key is not None:
        raise BudgetInvalid("a budget belongs to a project or to a key, not to both", param="api_key")
    if any(owner is not None and owner.tenant_id != tenant.pk for owner in (project, api_key)):
        raise BudgetInvalid("the project or the key belongs to another account")
    budgeted_set(tenant=tenant, budgeted=True)  # locks the tenant's balance until the commit
    zone = zone_of(tenant.pk)
    changed = {"amount_micros": amount_micros, "hard_stop": hard_stop, "updated_at": now}
    made = {**changed, "currency": tenant.currency, "counts_from": month_begin(now, zone), "created_at": now}
    budget, created = Budget.objects.update_or_create(
        tenant=tenant, project=project, api_key=api_key, defaults=changed, create_defaults=made
    )
    month, _ = BudgetMonth.objects.get_or_create(budget=budget, month=month_of(now, zone))
    if created:
        _count(month, unfinished())
    reached = month.spent_micros * 100 // amount_micros if amount_micros and month.spent_micros > 0 else 0
    BudgetCrossing.objects.filter(budget_month=month, percent__gt=reached).delete()
    crossings_record(tenant=tenant, budget_id=budget.pk, now=now)
    return budget


def budgets_follow(key: ApiKey, *, successor: ApiKey) -> None:
    """Make the budget of a rotated key its successor's. Its counts go on: they are those of the keys' family."""
    Budget.objects.filter(api_key=key).update(api_key=successor)


@transaction.atomic
def budget_remove(*, tenant: Tenant, budget_id: UUID) -> Budget:
    """Delete a budget with its counts. Raises `BudgetNotFound`."""
    budgeted_set(tenant=tenant, budgeted=True)
    budget = budget_get(tenant=tenant, budget_id=budget_id)
    Budget.objects.filter(pk=budget_id).delete()
    budgeted_set(tenant=tenant, budgeted=Budget.objects.filter(tenant=tenant).exists())
    return budget


def budget_get(*, tenant: Tenant, budget_id: UUID) -> Budget:
    """Return one of a tenant's budgets. Raises `BudgetNotFound`."""
    if found := Budget.objects.filter(tenant=tenant, pk=budget_id).select_related("project", "api_key").first():
        return found
    raise BudgetNotFound


def budget_status(*, tenant: Tenant, budget_id: UUID, now: datetime) -> BudgetStatus:
    """Return the status of a budget in the month of `now`. Raises `BudgetNotFound`."""
    budget = budget_get(tenant=tenant, budget_id=budget_id)
    return next(status for status in budgets_of(tenant, now=now) if status.budget == budget)


def budgets_of(tenant: Tenant, *, now: datetime) -> list[BudgetStatus]:
    """Return the status of a tenant's budgets in the month of `now`, the account's own first."""
    zone = zone_of(tenant.pk)
    months = BudgetMonth.objects.filter(budget__tenant=tenant, month=month_of(now, zone)).prefetch_related("crossings")
    by_budget = {month.budget_id: month for month in months}
    order = (F("project__slug").asc(nulls_first=True), F("api_key__key_id").asc(nulls_first=True))
    statuses = []
    for budget in Budget.objects.filter(tenant=tenant).select_related("project", "api_key").order_by(*order):
        month = by_budget.get(budget.pk, BudgetMonth())
        status = BudgetStatus(
            budget=budget,
            spent_micros=month.spent_micros,
            held_micros=month.held_micros,
            crossed=tuple(sorted(crossing.percent for crossing in month.crossings.all())) if month.pk else (),
            resets_at=month_end(now, zone),
        )
        statuses.append(status)
    return statuses


def budgets_page(*, tenant: Tenant, limit: int, after: UUID | None, now: datetime) -> tuple[list[BudgetStatus], bool]:
    """List the budgets in the order of `budgets_of`, those after `after`; return True too if more follow.

    Raises `BudgetNotFound`.
    """
    found, begin = budgets_of(tenant, now=now), 0
    if after is not None:
        places = [place for place, status in enumerate(found, start=1) if status.budget.pk == after]
        if not places:
            raise BudgetNotFound
        (begin,) = places
    return found[begin : begin + limit], len(found) > begin + limit


def budget_charged_micros(budget: Budget) -> int:
    """Return the owner's charges since `counts_from`, without taxes: all months of the budget together."""
    admitted = Movement.objects.filter(kind=Movement.Kind.HOLD, reference=OuterRef("transaction__reference"))
    counted = {"transaction__created_at__gte": budget.counts_from, "currency": budget.currency}
    charges = Charge.objects.filter(transaction__tenant=budget.tenant_id, **counted)
    charges = charges.alias(admitted_at=Subquery(admitted.values("created_at")))
    # A job belongs to the month in which it was admitted, whatever month it ended in.
    charges = charges.filter(Q(admitted_at=None) | Q(admitted_at__gte=budget.counts_from)).order_by()
    adjustments = Adjustment.objects.filter(tenant=budget.tenant_id, **counted)
    adjustments = adjustments.exclude(kind=Adjustment.Kind.WRITE_OFF)
    if budget.api_key is not None:
        keys = list(family_keys(budget.api_key.family_id).values_list("key_id", flat=True))
        of_keys = Q(transaction__kind=Movement.Kind.POST, usage_record__dimensions__api_key__in=keys)
        return _sum(charges.filter(of_keys))
    if budget.project_id is not None:
        charges = charges.filter(usage_record__project=budget.project_id)
        adjustments = adjustments.filter(project=budget.project_id)
    return _sum(charges) + _sum(adjustments)


def _sum(rows: Any) -> int:
    return rows.aggregate(sum=Sum("amount_micros"))["sum"] or 0


def _count(month: BudgetMonth, unfinished: Iterable[UUID]) -> None:
    """Count existing charges and holds in a new budget's first month."""
    holds = Entry.objects.filter(
        transaction__reference__in=list(unfinished),
        transaction__kind=Movement.Kind.HOLD,
        transaction__created_at__gte=month.budget.counts_from,
        account__kind=LedgerAccount.Kind.HELD,
    )
    BudgetHold.objects.bulk_create(
        BudgetHold(budget_month=month, reference=reference, amount_micros=amount)
        for reference, amount in holds.values_list("transaction__reference", "amount_micros")
    )
    month.held_micros = _sum(BudgetHold.objects.filter(budget_month=month))
    month.spent_micros = budget_charged_micros(month.budget)
    month.save(update_fields=["spent_micros", "held_micros"])
