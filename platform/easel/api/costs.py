"""A tenant's usage and charges by the groups that it asks for, and the forecast of its month."""

from datetime import date, timedelta
from typing import Annotated, Generic, NotRequired, Self

from django.http import HttpRequest, HttpResponse
from pydantic import Field, model_validator
from typing_extensions import TypedDict

from billing.money import Money, money_json
from core import clock
from easel.api.declaration import LEFT_OUT, Day, OneOf, Text, UrlQuery
from easel.api.endpoint import endpoint
from easel.api.errors import InvalidField
from easel.api.resource import answer_json, caller
from easel.api.rows import T, row_json
from easel.reporting.costs import GROUPS_MAX, UNPRICED_GROUPS, CostRow, UnknownGroup
from easel.reporting.costs import costs as cost_rows
from easel.reporting.exports import Span
from easel.reporting.outlook import CONFIDENCE, WEEKS, anomalies, daily, forecast
from tenants.models import Scope


class SpanQuery(UrlQuery):
    start: Day = Field(default=LEFT_OUT, description="First day (UTC), by default the first of the last one's month.")
    end: Day = Field(default=LEFT_OUT, description="Last day (UTC), by default today.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.start and self.end and self.end < self.start:
            raise InvalidField(f"end must not be before start, {self.start}", param="end")
        return self

    def days(self, today: date) -> dict[str, date]:
        end = self.end or max(today, self.start or today)
        return {"start": self.start or end.replace(day=1), "end": end}


class UsageQuery(SpanQuery):
    group_by: Text = Field(default="project", description="Comma-separated: project, model, adapter, tier, day.")


class CostsQuery(SpanQuery):
    group_by: Text = Field(
        default="project",
        description="Comma-separated, at most four: day, project, model, version, adapter, quality, tier, resolution,"
        " key, meter, label:NAME.",
    )
    sort: Annotated[str, OneOf(("group", "amount"))] = Field(default="group", description="amount: the highest first.")

    def groups(self) -> list[str]:
        groups = list(dict.fromkeys(self.group_by.split(",")))
        if len(groups) > GROUPS_MAX:
            raise InvalidField(f"group_by must name at most {GROUPS_MAX} groups", param="group_by")
        return groups


class Measured(TypedDict):
    image_units: float
    gpu_seconds: float
    storage_gb_seconds: float
    cost: Money


class UsageRowAnswer(Measured):
    """The values that the rows were grouped by, and the sums of their group."""

    project: NotRequired[str]
    model: NotRequired[str]
    adapter: NotRequired[str]
    tier: NotRequired[str]
    day: NotRequired[str]
    requests: int


class CostRowAnswer(Measured):
    group: dict[str, str]
    charges: int
    requests: int
    list_cost: Money


class Summed(TypedDict, Generic[T]):
    object: str
    data: list[T]
    start: date
    end: date
    total: Money


class AnomalyAnswer(TypedDict):
    day: date
    cost: Money
    usual: Money
    score: float


class OutlookAnswer(TypedDict):
    object: str
    month: date
    so_far: Money
    expected: Money | None
    low: Money | None
    high: Money | None
    missing: Annotated[str | None, Field(description="Why there is no forecast, or no interval around it.")]
    confidence: float
    anomalies: list[AnomalyAnswer]


@endpoint("get", "usage_get", Summed[UsageRowAnswer], query=UsageQuery, is_deprecated=True, scope=Scope.USAGE)
def usage(request: HttpRequest) -> HttpResponse:
    """Sum usage by project, day and so on. Use `/v1/costs` instead, unless you need what was not charged."""
    query = UsageQuery.read(request.GET.dict())
    groups = list(dict.fromkeys(query.group_by.split(",")))
    if unknown := [name for name in groups if name not in UNPRICED_GROUPS]:
        known = ", ".join(UNPRICED_GROUPS)
        raise InvalidField(f"group_by must name some of {known}, and not {unknown[0]!r}", param="group_by")
    days, tenant = query.days(clock.now().date()), caller(request).tenant
    span = Span(tenant=tenant.slug, **days)
    rows = cost_rows(span, group_by=groups, currency=tenant.currency, with_unpriced=True)
    shown = [{**row.group, "requests": int(row.requests), **measured_json(row, tenant.currency)} for row in rows]
    total = money_json(sum(row.amount_micros for row in rows), tenant.currency)
    return answer_json({"object": "usage", **days, "data": shown, "total": total})


@endpoint("get", "costs_get", Summed[CostRowAnswer], query=CostsQuery, errors=(UnknownGroup,), scope=Scope.USAGE)
def costs(request: HttpRequest) -> HttpResponse:
    """Sum what was charged by day, project, label, model and so on, beside the same at list prices."""
    query = CostsQuery.read(request.GET.dict())
    groups, tenant = query.groups(), caller(request).tenant
    days = query.days(clock.now().date())
    rows = cost_rows(Span(tenant=tenant.slug, **days), group_by=groups, currency=tenant.currency, order=query.sort)
    shown = [
        {
            "group": row.group,
            "charges": row.charges,
            "requests": int(row.requests),
            **measured_json(row, tenant.currency),
            "list_cost": money_json(row.list_micros, tenant.currency),
        }
        for row in rows
    ]
    total = money_json(sum(row.amount_micros for row in rows), tenant.currency)
    return answer_json({"object": "costs", **days, "data": shown, "total": total})


@endpoint("get", "costs_outlook", OutlookAnswer, scope=Scope.USAGE)
def outlook(request: HttpRequest) -> HttpResponse:
    """Forecast this month from the weekdays of the last eight weeks, and list its days that stand out."""
    tenant, today = caller(request).tenant, clock.now().date()
    first = today.replace(day=1)
    span = Span(start=first - timedelta(weeks=WEEKS), end=today, tenant=tenant.slug)
    found = daily(span, currency=tenant.currency)
    month = forecast(found, today=today)

    def money(amount: int | None) -> Money | None:
        return None if amount is None else money_json(amount, tenant.currency)

    return answer_json(
        {
            "object": "costs.outlook",
            "month": first,
            "so_far": money(month.spent_micros),
            "expected": money(month.expected_micros),
            "low": money(month.low_micros),
            "high": money(month.high_micros),
            "missing": month.missing,
            "confidence": CONFIDENCE,
            "anomalies": [
                row_json(AnomalyAnswer, one, cost=money(one.amount_micros), usual=money(one.usual_micros))
                for one in anomalies(found, since=first)
                if one.day < today
            ],
        }
    )


def measured_json(row: CostRow, currency: str) -> Measured:
    return {
        "image_units": float(row.image_units),
        "gpu_seconds": float(row.gpu_seconds),
        "storage_gb_seconds": float(row.storage_gb_seconds),
        "cost": money_json(row.amount_micros, currency),
    }
