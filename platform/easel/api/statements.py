"""A tenant's statements, month by month, down to the jobs behind a line."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from pydantic import Field
from typing_extensions import TypedDict

from billing.invoices.documents import title_of
from billing.invoices.files import statement_file
from billing.invoices.lines import charges_of_line, projects_of
from billing.invoices.queries import StatementNotFound, charges_page, line_get, statement_get, statements_page
from billing.invoices.statements import statement_now
from billing.models import Charge, Statement, StatementLine
from billing.money import Money, money_json
from core import clock
from easel.api.declaration import OneOf, PageQuery, UrlQuery
from easel.api.endpoint import endpoint
from easel.api.resource import answer_json, caller
from easel.api.rows import Listed, listed, row_json
from easel.jobs.models import Attempt
from tenants.models import Scope


class DocumentQuery(UrlQuery):
    decimal: Annotated[str, OneOf(("point", "comma"))] = Field(
        default="point", description="The decimal separator of the CSV."
    )


class BilledTo(TypedDict):
    name: str
    address: str
    tax_id: str


class Documents(TypedDict):
    html: str
    pdf: str
    csv: str


class StatementContent(TypedDict):
    object: Annotated[str, OneOf(Statement.Kind.values)]
    title: str
    number: int | None
    status: Annotated[str, OneOf(Statement.State.values)]
    corrects: str | None
    period_start: datetime
    period_end: datetime
    time_zone: str
    billed_to: BilledTo
    subtotal: Money
    tax_name: str
    tax_rate: str
    tax: Money
    total: Money
    finalised_at: datetime | None


class StatementId(TypedDict):
    id: str


class StatementSummary(StatementId, StatementContent):
    documents: Documents


class LineAnswer(TypedDict):
    position: int
    project: str | None
    labels: dict[str, str]
    meter: str | None
    model: str | None
    kind: str
    description: str
    quantity: str | None
    charges: int
    amount: Money


class StatementAnswer(StatementSummary):
    lines: list[LineAnswer]


class CurrentStatementAnswer(StatementContent):
    """A statement that is not stored, and so has no id and no documents."""

    lines: list[LineAnswer]


class PriceAnswer(TypedDict):
    unit_price: str
    mode: str
    price_book: str
    used_before: str
    discount: str


class AttemptAnswer(TypedDict):
    """`device_share`: the attempt's GPU seconds divided by its running time."""

    number: int
    status: str
    worker: str
    gpu_class: str
    started_at: datetime | None
    finished_at: datetime | None
    steps_done: int
    gpu_seconds: float
    device_share: float | None


class ChargeAnswer(TypedDict):
    id: str
    kind: str
    charged_at: datetime
    used_at: datetime
    quantity: str
    price: PriceAnswer
    amount: Money
    corrects: str | None
    reason: str | None
    job_id: str | None
    attempts: list[AttemptAnswer]


@endpoint(
    "get",
    "statements_list",
    Listed[StatementSummary],
    query=PageQuery,
    errors=(StatementNotFound,),
    scope=Scope.USAGE,
)
def statements(request: HttpRequest) -> HttpResponse:
    """List statements and credit notes, the latest first."""
    query = PageQuery.read(request.GET.dict())
    found, more = statements_page(tenant=caller(request).tenant, **query.page())
    return answer_json(listed([statement_json(one) for one in found], has_more=more))


@endpoint("get", "statements_current", CurrentStatementAnswer, scope=Scope.USAGE)
def statement_current(request: HttpRequest) -> HttpResponse:
    """Draft this month's statement as if the month ended now."""
    statement, lines = statement_now(caller(request).tenant, now=clock.now())
    fields = row_json(CurrentStatementAnswer, statement, **_derived(statement), lines=_lines_json(lines, statement))
    return answer_json(fields)


@endpoint("get", "statements_get", StatementAnswer, errors=(StatementNotFound,), scope=Scope.USAGE)
def statement_detail(request: HttpRequest, statement_id: UUID) -> HttpResponse:
    """Show a statement or credit note with its lines."""
    statement = statement_get(tenant=caller(request).tenant, statement_id=statement_id)
    lines = _lines_json(list(statement.lines.all()), statement)
    return answer_json({**statement_json(statement), "lines": lines})


@endpoint(
    "get",
    "statements_document",
    query=DocumentQuery,
    files=("text/html", "text/csv", "application/pdf"),
    errors=(StatementNotFound,),
    scope=Scope.USAGE,
)
def statement_document(request: HttpRequest, statement_id: UUID, form: str) -> HttpResponse:
    """Download the statement as `html` (a page that prints well), `pdf` or `csv`."""
    query = DocumentQuery.read(request.GET.dict())
    statement = statement_get(tenant=caller(request).tenant, statement_id=statement_id)
    file = statement_file(statement, form, comma=query.decimal == "comma")
    headers = {"Content-Disposition": file.disposition}
    return HttpResponse(file.content, content_type=file.media_type, headers=headers)


@endpoint(
    "get",
    "statements_line_charges",
    Listed[ChargeAnswer],
    query=PageQuery,
    errors=(StatementNotFound,),
    scope=Scope.USAGE,
)
def statement_line_charges(request: HttpRequest, statement_id: UUID, position: int) -> HttpResponse:
    """List the charges of a line, each with its price, its job and the attempts at that."""
    query = PageQuery.read(request.GET.dict())
    statement = statement_get(tenant=caller(request).tenant, statement_id=statement_id)
    line = line_get(statement, position=position)
    found, more = charges_page(charges_of_line(line), **query.page())
    return answer_json(listed(charges_json(found), has_more=more))


def statement_json(statement: Statement) -> StatementSummary:
    url = f"{settings.EASEL.public_url}/v1/statements/{statement.id}"
    documents = {form: f"{url}/{form}" for form in ("html", "pdf", "csv")}
    return row_json(StatementSummary, statement, **_derived(statement), documents=documents)


def _derived(statement: Statement) -> dict[str, Any]:
    """Return the fields of `StatementContent` that are not the model's own."""
    return {
        "object": statement.kind,
        "title": title_of(statement),
        "status": statement.state,
        "corrects": str(statement.corrects_id) if statement.corrects_id else None,
        "subtotal": money_json(statement.subtotal_micros, statement.currency),
        "tax_rate": f"{statement.tax_rate.normalize():f}",
        "tax": money_json(statement.tax_micros, statement.currency),
        "total": money_json(statement.total_micros, statement.currency),
    }


def _lines_json(lines: Sequence[StatementLine], statement: Statement) -> list[LineAnswer]:
    projects = projects_of(lines)
    return [
        row_json(
            LineAnswer,
            line,
            project=projects[line.project_id].slug if line.project_id else None,
            labels=projects[line.project_id].labels if line.project_id else {},
            meter=line.meter or None,
            model=line.model or None,
            quantity=None if line.quantity is None else f"{line.quantity.normalize():f}",
            amount=money_json(line.amount_micros, statement.currency),
        )
        for line in lines
    ]


def charges_json(charges: Sequence[Charge]) -> list[ChargeAnswer]:
    attempts: dict[UUID | None, list[AttemptAnswer]] = defaultdict(list)
    jobs = {charge.usage_record.job_id for charge in charges if charge.usage_record.job_id}
    for attempt in Attempt.objects.filter(job_id__in=jobs).order_by("job", "number"):
        attempts[attempt.job_id].append(_attempt_json(attempt))
    return [
        row_json(
            ChargeAnswer,
            charge,
            charged_at=charge.created_at,
            used_at=record.occurred_at,
            quantity=f"{record.quantity.normalize():f}",
            price={
                "unit_price": f"{charge.rate.unit_price.normalize():f}",
                "mode": charge.rate.mode,
                "price_book": str(charge.rate.price_book),
                "used_before": f"{charge.used_before.normalize():f}",
                "discount": f"{charge.discount.normalize():f}",
            },
            amount=money_json(charge.amount_micros, charge.currency),
            corrects=str(record.corrects_id) if record.corrects_id else None,
            reason=record.reason or None,
            job_id=str(record.job_id) if record.job_id else None,
            attempts=attempts[record.job_id],
        )
        for charge in charges
        for record in [charge.usage_record]
    ]


def _attempt_json(attempt: Attempt) -> AttemptAnswer:
    ran = attempt.started_at and attempt.finished_at and (attempt.finished_at - attempt.started_at).total_seconds()
    seconds = float(attempt.gpu_seconds)
    share = min(1.0, seconds / ran) if ran else None
    return row_json(AttemptAnswer, attempt, status=attempt.state, gpu_seconds=seconds, device_share=share)
