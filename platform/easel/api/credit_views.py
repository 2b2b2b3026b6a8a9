"""What a tenant may ask for and can spend, and the budgets that it sets itself."""

from typing import Any
from uuid import UUID

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from drf_spectacular.utils import extend_schema

from billing.budgets.budgets import (
    BudgetInvalid,
    BudgetStanding,
    budget_remove,
    budget_standing,
    budgets_of,
)
from billing.ledger import ledger
from billing.models import CreditGrant
from core import clock
from core.audit import audit_record
from core.errors import NotFound
from easel.api import money_schemas
from easel.api.openapi import answers
from easel.api.rendering import money_json, quota_json
from easel.api.resource import Resource, answer_json, body_of, caller
from easel.api.serializers import BudgetInput
from easel.jobs.budgets import budget_set
from easel.jobs.errors import ProjectNotFound
from tenants.models import ApiKey, Scope, Tenant


class QuotaView(Resource):
    @extend_schema(operation_id="quota_get", responses=answers(money_schemas.QUOTA))
    def get(self, request: HttpRequest) -> HttpResponse:
        """What your account and this key may ask for, and how much of it is used."""
        return answer_json(quota_json(caller(request), now=clock.now()))


class Balance(Resource):
    scope = Scope.USAGE

    @extend_schema(operation_id="balance_get", responses=answers(money_schemas.BALANCE))
    def get(self, request: HttpRequest) -> HttpResponse:
        """What you can spend, what is held for jobs in hand, what you owe, and the credit that makes it up."""
        return answer_json(balance_json(caller(request).tenant))


class Budgets(Resource):
    """Reading takes the scope `usage`, changing `billing`: a hard stop should bind the keys that generate."""

    def scope_of(self, request: HttpRequest) -> str:
        return Scope.USAGE if request.method in ("GET", "HEAD") else Scope.BILLING

    @extend_schema(operation_id="budgets_list", responses=answers(money_schemas.BUDGETS))
    def get(self, request: HttpRequest) -> HttpResponse:
        """Your budgets and how they stand this month."""
        found = budgets_of(caller(request).tenant, now=clock.now())
        return answer_json({"object": "list", "data": [budget_json(standing) for standing in found]})

    @extend_schema(operation_id="budgets_set", request=BudgetInput, responses=answers(money_schemas.BUDGET))
    def put(self, request: HttpRequest) -> HttpResponse:
        """Makes the budget of your account, of a project or of a key, or changes it; it holds at once."""
        fields = BudgetInput(data=body_of(request))
        fields.is_valid(raise_exception=True)
        given = fields.validated_data
        tenant, now = caller(request).tenant, clock.now()
        if given.get("currency", tenant.currency) != tenant.currency:
            raise BudgetInvalid(f"this account is billed in {tenant.currency}", param="currency")
        with transaction.atomic():
            budget = budget_set(
                tenant=tenant,
                **_owner(tenant, given),
                amount_micros=given["amount_micros"],
                hard_stop=given["hard_stop"],
                now=now,
            )
            _record(
                request, "budget.set", budget, {"amount_micros": budget.amount_micros, "hard_stop": budget.hard_stop}
            )
        return answer_json(budget_json(budget_standing(tenant=tenant, budget_id=budget.pk, now=now)))


class BudgetDetail(Resource):
    scope = Scope.BILLING

    @extend_schema(operation_id="budgets_remove", responses=answers(money_schemas.BUDGET))
    def delete(self, request: HttpRequest, budget_id: UUID) -> HttpResponse:
        """Takes a budget away, with what it has counted."""
        tenant = caller(request).tenant
        with transaction.atomic():
            before = budget_standing(tenant=tenant, budget_id=budget_id, now=clock.now())
            budget_remove(tenant=tenant, budget_id=budget_id)
            _record(request, "budget.remove", before.budget, {})
        return answer_json(budget_json(before))


def balance_json(tenant: Tenant) -> dict[str, Any]:
    """Amounts by `money_json`; grants in the order in which they are spent."""
    standing = ledger.balance_of(tenant)
    amounts = {
        "available": standing.available,
        "credit": standing.credit,
        "held": standing.held,
        "owed": standing.owed,
        "credit_limit": standing.limit,
    }
    return {
        "object": "balance",
        **{name: money_json(micros, tenant.currency) for name, micros in amounts.items()},
        "grants": [
            {
                "id": str(grant.pk),
                "category": grant.category,
                "priority": grant.priority,
                "amount": money_json(grant.amount_micros, grant.currency),
                "remaining": money_json(grant.remaining_micros, grant.currency),
                "created_at": grant.created_at,
                "expires_at": grant.expires_at,
            }
            for grant in CreditGrant.to_spend(tenant)
        ],
    }


def budget_json(standing: BudgetStanding) -> dict[str, Any]:
    budget = standing.budget
    return {
        "id": str(budget.pk),
        "object": "budget",
        "project": budget.project.slug if budget.project else None,
        "api_key": budget.api_key.key_id if budget.api_key else None,
        "amount": money_json(budget.amount_micros, budget.currency),
        "hard_stop": budget.hard_stop,
        "spent": money_json(standing.spent_micros, budget.currency),
        "held": money_json(standing.held_micros, budget.currency),
        "remaining": money_json(standing.left_micros, budget.currency),
        "thresholds_reached": list(standing.crossed),
        "resets_at": standing.resets_at,
    }


def _owner(tenant: Tenant, given: dict[str, Any]) -> dict[str, Any]:
    """Raises `ProjectNotFound`, `NotFound`: another tenant's are none."""
    owner: dict[str, Any] = {}
    if given.get("project") is not None:
        owner["project"] = tenant.projects.filter(slug=given["project"]).first()
        if owner["project"] is None:
            raise ProjectNotFound(f"there is no project {given['project']!r} in this account", param="project")
    if given.get("api_key") is not None:
        owner["api_key"] = ApiKey.objects.filter(tenant=tenant, key_id=given["api_key"]).first()
        if owner["api_key"] is None:
            raise NotFound(f"there is no API key {given['api_key']!r} in this account", param="api_key")
    return owner


def _record(request: HttpRequest, action: str, budget: Any, details: dict[str, Any]) -> None:
    key = caller(request)
    audit_record(
        actor=f"key:{key.key_id}",
        action=action,
        subject=str(budget),
        tenant=key.tenant,
        details=details,
        now=clock.now(),
    )
