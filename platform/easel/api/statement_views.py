"""What a tenant was charged, month by month, down to the jobs behind a line."""

from uuid import UUID

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.invoices.files import statement_file
from billing.invoices.lines import charges_of_line
from billing.invoices.queries import (
    charges_page,
    line_get,
    statement_get,
    statements_page,
)
from billing.invoices.statements import statement_now
from core import clock
from easel.api import money_schemas
from easel.api.authentication import caller
from easel.api.openapi import answers
from easel.api.serializers import DocumentQuery, PageQuery
from easel.api.statement_rendering import charges_json, statement_json, statement_whole_json
from tenants.models import Scope


class Statements(APIView):
    scope = Scope.USAGE

    @extend_schema(operation_id="statements_list", parameters=[PageQuery], responses=answers(money_schemas.STATEMENTS))
    def get(self, request: Request) -> Response:
        """Statements and credit notes, the latest first."""
        query = PageQuery(data=request.query_params.dict())
        query.is_valid(raise_exception=True)
        found, more = statements_page(tenant=caller(request).tenant, **query.page())
        return Response({"object": "list", "data": [statement_json(one) for one in found], "has_more": more})


class StatementCurrent(APIView):
    scope = Scope.USAGE

    @extend_schema(operation_id="statements_current", responses=answers(money_schemas.STATEMENT))
    def get(self, request: Request) -> Response:
        """What this month's statement would say if it ended now."""
        return Response(statement_whole_json(*statement_now(caller(request).tenant, now=clock.now())))


class StatementDetail(APIView):
    scope = Scope.USAGE

    @extend_schema(operation_id="statements_get", responses=answers(money_schemas.STATEMENT))
    def get(self, request: Request, statement_id: UUID) -> Response:
        statement = statement_get(tenant=caller(request).tenant, statement_id=statement_id)
        return Response(statement_whole_json(statement, list(statement.lines.all())))


class StatementDocument(APIView):
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
    def get(self, request: Request, statement_id: UUID, form: str) -> HttpResponse:
        """The statement as `html`, a page that prints well, as `pdf`, or as `csv`."""
        query = DocumentQuery(data=request.query_params.dict())
        query.is_valid(raise_exception=True)
        statement = statement_get(tenant=caller(request).tenant, statement_id=statement_id)
        file = statement_file(statement, form, comma=query.validated_data["decimal"] == "comma")
        headers = {"Content-Disposition": file.disposition}
        return HttpResponse(file.content, content_type=file.media_type, headers=headers)


class StatementLineCharges(APIView):
    scope = Scope.USAGE

    @extend_schema(
        operation_id="statements_line_charges",
        parameters=[PageQuery],
        responses=answers(money_schemas.STATEMENT_CHARGES),
    )
    def get(self, request: Request, statement_id: UUID, position: int) -> Response:
        """What a line sums: each charge with its price, its job, and the attempts at that."""
        query = PageQuery(data=request.query_params.dict())
        query.is_valid(raise_exception=True)
        statement = statement_get(tenant=caller(request).tenant, statement_id=statement_id)
        line = line_get(statement, position=position)
        found, more = charges_page(charges_of_line(line), **query.page())
        return Response({"object": "list", "data": charges_json(found), "has_more": more})
