"""What a tenant may ask for and can spend, and the budgets that it sets itself."""

from typing import Any
from uuid import UUID

from django.db import transaction
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.budgets.budgets import (
    BudgetInvalid,
    BudgetStatus,
    budget_remove,
    budget_status,
    budgets_of,
)
from billing.ledger.accounts import balance_of
from billing.models import CreditGrant
from billing.money import money_json
from core import clock
from core.audit import audit_record
from core.errors import NotFound
from easel.api import money_schemas
from easel.api.authentication import caller
from easel.api.openapi import answers
from easel.api.rendering import quota_json
from easel.api.serializers import BudgetInput
from easel.jobs.budgets import budget_set
from easel.jobs.errors import ProjectNotFound
from tenants.models import ApiKey, Scope, Tenant


class QuotaView(APIView):
    @extend_schema(operation_id="quota_get", responses=answers(money_schemas.QUOTA))
    def get(self, request: Request) -> Response:
        """What your account and this key may ask for, and how much of it is used."""
        return Response(quota_json(caller(request), now=clock.now()))


class Balance(APIView):
    scope = Scope.USAGE

    @extend_schema(operation_id="balance_get", responses=answers(money_schemas.BALANCE))
    def get(self, request: Request) -> Response:
        """What you can spend, what is held for jobs in hand, what you owe, and the credit that makes it up."""
        return Response(balance_json(caller(request).tenant))


class Budgets(APIView):
    """Reading takes the scope `usage`, changing `billing`: a hard stop should bind the keys that generate."""

    @property
    def scope(self) -> str:
        return Scope.USAGE if self.request.method == "GET" else Scope.BILLING

    @extend_schema(operation_id="budgets_list", responses=answers(money_schemas.BUDGETS))
    def get(self, request: Request) -> Response:
        """Your budgets and how they stand this month."""
        found = budgets_of(caller(request).tenant, now=clock.now())
        return Response({"object": "list", "data": [budget_json(status) for status in found]})

    @extend_schema(operation_id="budgets_set", request=BudgetInput, responses=answers(money_schemas.BUDGET))
    def put(self, request: Request) -> Response:
        """Makes the budget of your account, of a project or of a key, or changes it; it holds at once."""
        fields = BudgetInput(data=request.data)
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
        return Response(budget_json(budget_status(tenant=tenant, budget_id=budget.pk, now=now)))


class BudgetDetail(APIView):
    scope = Scope.BILLING

    @extend_schema(operation_id="budgets_remove", responses=answers(money_schemas.BUDGET))
    def delete(self, request: Request, budget_id: UUID) -> Response:
        """Takes a budget away, with what it has counted."""
        tenant = caller(request).tenant
        with transaction.atomic():
            before = budget_status(tenant=tenant, budget_id=budget_id, now=clock.now())
            budget_remove(tenant=tenant, budget_id=budget_id)
            _record(request, "budget.remove", before.budget, {})
        return Response(budget_json(before))


def balance_json(tenant: Tenant) -> dict[str, Any]:
    """Amounts by `money_json`; grants in the order in which they are spent."""
    balance = balance_of(tenant)
    amounts = {
        "available": balance.available,
        "credit": balance.credit,
        "held": balance.held,
        "owed": balance.owed,
        "credit_limit": balance.limit,
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


def budget_json(status: BudgetStatus) -> dict[str, Any]:
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


def _record(request: Request, action: str, budget: Any, details: dict[str, Any]) -> None:
    key = caller(request)
    audit_record(
        actor=f"key:{key.key_id}",
        action=action,
        subject=str(budget),
        tenant=key.tenant,
        details=details,
        now=clock.now(),
    )
