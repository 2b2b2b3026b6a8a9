"""What a tenant was charged, month by month, down to the jobs behind a line."""

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema

from billing.invoices.documents import statement_csv, statement_html, statement_pdf
from billing.invoices.lines import charges_of_line
from billing.invoices.queries import (
    charges_page,
    line_get,
    statement_get,
    statements_page,
)
from billing.invoices.statements import statement_now
from billing.models import Statement, StatementLine
from core import clock
from easel.api import money_schemas
from easel.api.openapi import answers
from easel.api.resource import Resource, answer_json, caller
from easel.api.serializers import DocumentQuery, PageQuery
from easel.api.statement_rendering import charges_json, statement_json, statement_whole_json
from tenants.models import Scope


class Statements(Resource):
    scope = Scope.USAGE

    @extend_schema(operation_id="statements_list", parameters=[PageQuery], responses=answers(money_schemas.STATEMENTS))
    def get(self, request: HttpRequest) -> HttpResponse:
        """Statements and credit notes, the latest first."""
        query = PageQuery(data=request.GET.dict())
        query.is_valid(raise_exception=True)
        found, more = statements_page(tenant=caller(request).tenant, **query.page())
        return answer_json({"object": "list", "data": [statement_json(one) for one in found], "has_more": more})


class StatementCurrent(Resource):
    scope = Scope.USAGE

    @extend_schema(operation_id="statements_current", responses=answers(money_schemas.STATEMENT))
    def get(self, request: HttpRequest) -> HttpResponse:
        """What this month's statement would say if it ended now."""
        return answer_json(statement_whole_json(*statement_now(caller(request).tenant, now=clock.now())))


class StatementDetail(Resource):
    scope = Scope.USAGE

    @extend_schema(operation_id="statements_get", responses=answers(money_schemas.STATEMENT))
    def get(self, request: HttpRequest, statement_id: UUID) -> HttpResponse:
        statement = statement_get(tenant=caller(request).tenant, statement_id=statement_id)
        return answer_json(statement_whole_json(statement, list(statement.lines.all())))


class StatementDocument(Resource):
    scope = Scope.USAGE

    @extend_schema(
        operation_id="statements_document",
        parameters=[DocumentQuery],
        responses={
            (200, "text/html"): OpenApiTypes.STR,
            (200, "text/csv"): OpenApiTypes.STR,
            (200, "application/pdf"): OpenApiResponse(OpenApiTypes.BINARY),
        },
    )
    def get(self, request: HttpRequest, statement_id: UUID, form: str) -> HttpResponse:
        """The statement as `html`, a page that prints well, as `pdf`, or as `csv`."""
        query = DocumentQuery(data=request.GET.dict())
        query.is_valid(raise_exception=True)
        statement = statement_get(tenant=caller(request).tenant, statement_id=statement_id)
        return document(statement, form, comma=query.validated_data["decimal"] == "comma")


def document(statement: Statement, form: str, *, comma: bool) -> HttpResponse:
    """A statement as a file named after it."""
    lines: list[StatementLine] = list(statement.lines.all())
    if form == "html":
        answer = HttpResponse(statement_html(statement, lines))
    elif form == "pdf":
        answer = HttpResponse(statement_pdf(statement, lines), content_type="application/pdf")
    else:
        answer = HttpResponse(
            "".join(statement_csv(statement, lines, comma=comma)), content_type="text/csv; charset=utf-8"
        )
    name = f"{statement.kind}-{statement.number or 'draft'}.{form}"
    answer["Content-Disposition"] = f'{"inline" if form == "html" else "attachment"}; filename="{name}"'
    return answer


class StatementLineCharges(Resource):
    scope = Scope.USAGE

    @extend_schema(
        operation_id="statements_line_charges",
        parameters=[PageQuery],
        responses=answers(money_schemas.STATEMENT_CHARGES),
    )
    def get(self, request: HttpRequest, statement_id: UUID, position: int) -> HttpResponse:
        """What a line sums: each charge with its price, its job, and the attempts at that."""
        query = PageQuery(data=request.GET.dict())
        query.is_valid(raise_exception=True)
        statement = statement_get(tenant=caller(request).tenant, statement_id=statement_id)
        line = line_get(statement, position=position)
        found, more = charges_page(charges_of_line(line), **query.page())
        return answer_json({"object": "list", "data": charges_json(found), "has_more": more})
