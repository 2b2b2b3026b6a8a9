"""Exports of a tenant's own costs and usage, as files."""

from datetime import date
from typing import Any

from django.http import HttpRequest, StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema

from billing.invoices.queries import statement_numbered
from core import clock
from easel.api.downloads import download
from easel.api.resource import Resource, caller
from easel.api.serializers import CostsExportQuery, FocusExportQuery, SpanQuery
from easel.reporting import exports
from easel.reporting.exports import Span
from tenants.models import Scope

_PARQUET = "application/vnd.apache.parquet"
_CSV = "text/csv; charset=utf-8"
_FILE = OpenApiResponse(OpenApiTypes.BINARY)


class FocusExport(Resource):
    scope = Scope.USAGE

    @extend_schema(
        operation_id="exports_focus",
        parameters=[FocusExportQuery],
        responses={(200, "text/csv"): OpenApiTypes.STR, (200, _PARQUET): _FILE},
    )
    def get(self, request: HttpRequest) -> StreamingHttpResponse:
        """What was charged, in the columns of FOCUS 1.2: by days of use, or an invoice whole."""
        query = FocusExportQuery(data=request.GET.dict())
        query.is_valid(raise_exception=True)
        form, invoice = query.validated_data["format"], query.validated_data.get("invoice")
        span = _span(request, query)
        if invoice is not None:
            statement_numbered(invoice, tenant=span.tenant)
        return download(
            exports.focus(span, form=form, invoice=invoice),
            name=f"focus-{span.tenant}-{f'invoice-{invoice}' if invoice else _days(span)}.{form}",
            content_type=_PARQUET if form == "parquet" else _CSV,
        )


class CostsExport(Resource):
    scope = Scope.USAGE

    @extend_schema(
        operation_id="exports_costs", parameters=[CostsExportQuery], responses={(200, "text/csv"): OpenApiTypes.STR}
    )
    def get(self, request: HttpRequest) -> StreamingHttpResponse:
        """What was charged by day, project, labels, model and so on, as CSV for a spreadsheet."""
        query = CostsExportQuery(data=request.GET.dict())
        query.is_valid(raise_exception=True)
        span = _span(request, query)
        blocks = exports.costs(span, comma=query.validated_data["decimal"] == "comma")
        return download(blocks, name=f"costs-{span.tenant}-{_days(span)}.csv", content_type=_CSV)


class EventsExport(Resource):
    scope = Scope.USAGE

    @extend_schema(
        operation_id="exports_events",
        parameters=[SpanQuery],
        responses={(200, "application/jsonl"): OpenApiTypes.STR},
    )
    def get(self, request: HttpRequest) -> StreamingHttpResponse:
        """What was measured, a CloudEvent a line; `source` and `id` of an event never change."""
        query = SpanQuery(data=request.GET.dict())
        query.is_valid(raise_exception=True)
        span = _span(request, query)
        return download(
            exports.events(span), name=f"events-{span.tenant}-{_days(span)}.jsonl", content_type="application/jsonl"
        )


def _span(request: HttpRequest, query: Any) -> Span:
    today: date = clock.now().date()
    return Span(tenant=caller(request).tenant.slug, **query.days(today))


def _days(span: Span) -> str:
    return f"{span.start}-to-{span.end}"
