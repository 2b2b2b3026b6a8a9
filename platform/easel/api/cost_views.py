"""What a tenant used and was charged, by whatever it asks."""

from datetime import timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import ValidationError

from core import clock
from easel.api import money_schemas
from easel.api.openapi import answers
from easel.api.rendering import money_json
from easel.api.resource import Resource, answer_json, caller
from easel.api.serializers import CostsQuery, UsageQuery
from easel.reporting.costs import costs
from easel.reporting.exports import Span
from easel.reporting.outlook import CONFIDENCE, WEEKS, anomalies, daily, forecast
from easel.reporting.usage import GROUPS, usage
from tenants.models import Scope


class Usage(Resource):
    scope = Scope.USAGE

    @extend_schema(operation_id="usage_get", parameters=[UsageQuery], responses=answers(money_schemas.USAGE))
    def get(self, request: HttpRequest) -> HttpResponse:
        query = UsageQuery(data=request.GET.dict())
        query.is_valid(raise_exception=True)
        groups = list(dict.fromkeys(query.validated_data["group_by"].split(",")))
        if unknown := [name for name in groups if name not in GROUPS]:
            raise ValidationError({"group_by": f"doesn't know {unknown[0]!r}; known are {', '.join(GROUPS)}"})
        end = query.validated_data.get("end", clock.now().date())
        start = query.validated_data.get("start", end.replace(day=1))
        if end < start:
            raise ValidationError({"end": f"is before start, {start}"})
        tenant = caller(request).tenant
        rows = usage(Span(tenant=tenant.slug, start=start, end=end), group_by=groups)
        return answer_json(
            {
                "object": "usage",
                "start": start,
                "end": end,
                "data": [
                    {
                        **row.group,
                        "requests": row.requests,
                        "image_units": float(row.image_units),
                        "gpu_seconds": float(row.gpu_seconds),
                        "storage_gb_seconds": float(row.storage_gb_seconds),
                        "cost": money_json(row.cost_micros, tenant.currency),
                    }
                    for row in rows
                ],
                "total": money_json(sum(row.cost_micros for row in rows), tenant.currency),
            }
        )


class Costs(Resource):
    scope = Scope.USAGE

    @extend_schema(operation_id="costs_get", parameters=[CostsQuery], responses=answers(money_schemas.COSTS))
    def get(self, request: HttpRequest) -> HttpResponse:
        """What was charged by day, project, label, model and so on, beside what the list's prices would have asked."""
        query = CostsQuery(data=request.GET.dict())
        query.is_valid(raise_exception=True)
        tenant = caller(request).tenant
        days = query.days(clock.now().date())
        rows = costs(
            Span(tenant=tenant.slug, **days),
            group_by=query.validated_data["group_by"],
            currency=tenant.currency,
            order=query.validated_data["sort"],
        )
        return answer_json(
            {
                "object": "costs",
                **days,
                "data": [
                    {
                        "group": row.group,
                        "charges": row.charges,
                        "requests": float(row.requests),
                        "image_units": float(row.image_units),
                        "gpu_seconds": float(row.gpu_seconds),
                        "storage_gb_seconds": float(row.storage_gb_seconds),
                        "cost": money_json(row.amount_micros, tenant.currency),
                        "list_cost": money_json(row.list_micros, tenant.currency),
                    }
                    for row in rows
                ],
                "total": money_json(sum(row.amount_micros for row in rows), tenant.currency),
            }
        )


class Outlook(Resource):
    scope = Scope.USAGE

    @extend_schema(operation_id="costs_outlook", responses=answers(money_schemas.OUTLOOK))
    def get(self, request: HttpRequest) -> HttpResponse:
        """What this month will come to by the weekdays of the last eight weeks, and its days that stand out."""
        tenant, today = caller(request).tenant, clock.now().date()
        start = min(today - timedelta(weeks=WEEKS), today.replace(day=1) - timedelta(weeks=WEEKS))
        found = daily(Span(start=start, end=today, tenant=tenant.slug), currency=tenant.currency)
        month = forecast(found, today=today)

        def money(amount: int | None) -> dict[str, Any] | None:
            return None if amount is None else money_json(amount, tenant.currency)

        return answer_json(
            {
                "object": "costs.outlook",
                "month": today.replace(day=1),
                "so_far": money(month.spent_micros),
                "expected": money(month.expected_micros),
                "low": money(month.low_micros),
                "high": money(month.high_micros),
                "confidence": CONFIDENCE,
                "anomalies": [
                    {
                        "day": one.day,
                        "cost": money(one.amount_micros),
                        "usual": money(one.usual_micros),
                        "score": one.score,
                    }
                    for one in anomalies(found, since=today.replace(day=1))
                    if one.day < today
                ],
            }
        )
