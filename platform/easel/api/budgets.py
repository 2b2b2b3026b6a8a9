"""The balance that a tenant can spend, and the budgets that it sets itself."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from pydantic import Field
from typing_extensions import TypedDict

from billing.budgets.budgets import (
    BudgetInvalid,
    BudgetNotFound,
    BudgetStatus,
    budget_remove,
    budget_status,
    budgets_page,
)
from billing.ledger.accounts import balance_of
from billing.models import CreditGrant
from billing.money import AMOUNT_MICROS_MAX, Money, money_json
from core import clock
from core.audit import audit_record
from core.errors import NotFound
from easel.api.declaration import LEFT_OUT, Flag, Input, LongPageQuery, OneOf, Text, operation
from easel.api.endpoint import endpoint
from easel.api.resource import Resource, answer_json, body_of, caller
from easel.api.rows import Listed, listed, row_json
from easel.jobs.budgets import budget_set
from easel.jobs.errors import ProjectNotFound
from tenants.models import ApiKey, Scope, Tenant


class BudgetInput(Input):
    """The budget of a project or a key if one is named, else of the account."""

    project: Text = Field(default=LEFT_OUT, max_length=40)
    api_key: Text = Field(
        default=LEFT_OUT, max_length=16, description="The part of the key between `easel_sk_` and the next underscore."
    )
    amount_micros: int = Field(ge=0, le=AMOUNT_MICROS_MAX, description="1000000 are 1 of your currency.")
    currency: Text = Field(default=LEFT_OUT, max_length=3, description="Checked against your account's if given.")
    hard_stop: Flag = Field(default=False, description="True to refuse requests that would exceed the budget.")


class GrantAnswer(TypedDict):
    id: str
    category: Annotated[str, OneOf(CreditGrant.Category.values)]
    priority: int
    amount: Money
    remaining: Money
    created_at: datetime
    expires_at: datetime | None


class BalanceAnswer(TypedDict):
    """Grants are listed in the order in which they are spent."""

    object: str
    available: Money
    credit: Money
    held: Money
    owed: Money
    credit_limit: Money
    grants: list[GrantAnswer]


class BudgetAnswer(TypedDict):
    id: str
    object: str
    project: str | None
    api_key: str | None
    amount: Money
    hard_stop: bool
    spent: Money
    held: Money
    remaining: Money
    thresholds_reached: list[int]
    resets_at: datetime


@endpoint("get", "balance_get", BalanceAnswer, scope=Scope.USAGE)
def balance_detail(request: HttpRequest) -> HttpResponse:
    """Show what you can spend, what is held for unfinished jobs, what you owe, and your credit grants."""
    return answer_json(balance_json(caller(request).tenant))


class Budgets(Resource):
    """Reading takes the scope `usage`, changing `billing`: a hard stop should bind the keys that generate."""

    scope = Scope.BILLING
    scopes = {"GET": Scope.USAGE, "HEAD": Scope.USAGE}

    @operation("budgets_list", Listed[BudgetAnswer], query=LongPageQuery, errors=(BudgetNotFound,))
    def get(self, request: HttpRequest) -> HttpResponse:
        """List your budgets and what this month has spent of them."""
        query = LongPageQuery.read(request.GET.dict())
        found, more = budgets_page(tenant=caller(request).tenant, now=clock.now(), **query.page())
        return answer_json(listed([budget_json(status) for status in found], has_more=more))

    @operation("budgets_set", BudgetAnswer, request=BudgetInput, errors=(BudgetInvalid, ProjectNotFound, NotFound))
    def put(self, request: HttpRequest) -> HttpResponse:
        """Set the budget of your account, of a project or of a key. It applies at once."""
        fields = BudgetInput.read(body_of(request))
        tenant, now = caller(request).tenant, clock.now()
        if fields.currency not in (None, tenant.currency):
            raise BudgetInvalid(f"this account is billed in {tenant.currency}", param="currency")
        with transaction.atomic():
            terms: dict[str, Any] = {"amount_micros": fields.amount_micros, "hard_stop": fields.hard_stop}
            budget = budget_set(tenant=tenant, **_owner(tenant, fields), **terms, now=now)
            _record(request, "budget.set", budget, terms)
        return answer_json(budget_json(budget_status(tenant=tenant, budget_id=budget.pk, now=now)))


@endpoint("delete", "budgets_remove", BudgetAnswer, errors=(BudgetNotFound,), scope=Scope.BILLING)
def budget_detail(request: HttpRequest, budget_id: UUID) -> HttpResponse:
    """Remove a budget, with its counters."""
    tenant = caller(request).tenant
    with transaction.atomic():
        before = budget_status(tenant=tenant, budget_id=budget_id, now=clock.now())
        budget_remove(tenant=tenant, budget_id=budget_id)
        _record(request, "budget.remove", before.budget, {})
    return answer_json(budget_json(before))


def balance_json(tenant: Tenant) -> BalanceAnswer:
    balance = balance_of(tenant)
    return {
        "object": "balance",
        "available": money_json(balance.available, tenant.currency),
        "credit": money_json(balance.credit, tenant.currency),
        "held": money_json(balance.held, tenant.currency),
        "owed": money_json(balance.owed, tenant.currency),
        "credit_limit": money_json(balance.limit, tenant.currency),
        "grants": [
            row_json(
                GrantAnswer,
                grant,
                amount=money_json(grant.amount_micros, grant.currency),
                remaining=money_json(grant.remaining_micros, grant.currency),
            )
            for grant in CreditGrant.to_spend(tenant)
        ],
    }


def budget_json(status: BudgetStatus) -> BudgetAnswer:
    budget = status.budget
    return {
        "id": str(budget.pk),
        "object": "budget",
        "project": budget.project.slug if budget.project else None,
        "api_key": budget.api_key.key_id if budget.api_key else None,
        "amount": money_json(budget.amount_micros, budget.currency),
        "hard_stop": budget.hard_stop,
        "spent": money_json(status.spent_micros, budget.currency),
        "held": money_json(status.held_micros, budget.currency),
        "remaining": money_json(status.left_micros, budget.currency),
        "thresholds_reached": list(status.crossed),
        "resets_at": status.resets_at,
    }


def _owner(tenant: Tenant, given: BudgetInput) -> dict[str, Any]:
    """Return the project or key of a budget. Raises `ProjectNotFound`, `NotFound`, also for another tenant's."""
    owner: dict[str, Any] = {}
    if given.project is not None:
        owner["project"] = tenant.projects.filter(slug=given.project).first()
        if owner["project"] is None:
            raise ProjectNotFound(f"there is no project {given.project!r} in this account", param="project")
    if given.api_key is not None:
        owner["api_key"] = ApiKey.objects.filter(tenant=tenant, key_id=given.api_key).first()
        if owner["api_key"] is None:
            raise NotFound(f"there is no API key {given.api_key!r} in this account", param="api_key")
    return owner


def _record(request: HttpRequest, action: str, budget: Any, details: dict[str, Any]) -> None:
    key, now = caller(request), clock.now()
    actor, tenant = f"key:{key.key_id}", key.tenant
    audit_record(actor=actor, action=action, subject=str(budget), tenant=tenant, details=details, now=now)
