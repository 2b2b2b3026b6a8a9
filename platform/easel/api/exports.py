"""Exports of a tenant's own costs and usage, as files that are written while the client reads them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Self

from django.http import HttpRequest, StreamingHttpResponse
from pydantic import Field, model_validator

from billing.invoices.queries import StatementNotFound, statement_numbered
from core import clock
from easel.api.costs import SpanQuery
from easel.api.declaration import LEFT_OUT, OneOf
from easel.api.endpoint import endpoint
from easel.api.errors import InvalidField
from easel.api.resource import caller
from easel.reporting import exports
from easel.reporting.exports import ExportsBusy, ParquetUnavailable, Span
from tenants.models import Scope

_PARQUET = "application/vnd.apache.parquet"
_CONTENT_TYPES = {"csv": "text/csv; charset=utf-8", "parquet": _PARQUET, "jsonl": "application/jsonl"}


class FocusExportQuery(SpanQuery):
    format: Annotated[str, OneOf(("csv", "parquet"))] = "csv"
    invoice: int = Field(
        default=LEFT_OUT,
        ge=1,
        description="The number of a statement or credit note, to export all of it instead of days.",
    )

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        if self.invoice and (self.start or self.end):
            raise InvalidField("invoice has its own period: leave start and end out", param="invoice")
        return self


class CostsExportQuery(SpanQuery):
    decimal: Annotated[str, OneOf(("point", "comma"))] = Field(
        default="point", description="The decimal separator of the file."
    )


@endpoint(
    "get",
    "exports_focus",
    query=FocusExportQuery,
    files=("text/csv", _PARQUET),
    errors=(StatementNotFound, ExportsBusy, ParquetUnavailable),
    scope=Scope.USAGE,
)
def focus_export(request: HttpRequest) -> StreamingHttpResponse:
    """Export what was charged in the columns of FOCUS 1.2, by days of use or for one invoice."""
    query = FocusExportQuery.read(request.GET.dict())
    form, invoice = query.format, query.invoice
    span = _span(request, query)
    if invoice is not None:
        statement_numbered(invoice, tenant=span.tenant)
    blocks = exports.focus(span, form=form, invoice=invoice)
    return _file("focus", span, blocks, form=form, part=f"invoice-{invoice}" if invoice else "")


@endpoint("get", "exports_costs", query=CostsExportQuery, files=("text/csv",), errors=(ExportsBusy,), scope=Scope.USAGE)
def costs_export(request: HttpRequest) -> StreamingHttpResponse:
    """Export what was charged by day, project, labels, model and so on, as CSV for a spreadsheet."""
    query = CostsExportQuery.read(request.GET.dict())
    span = _span(request, query)
    blocks = exports.costs(span, comma=query.decimal == "comma")
    return _file("costs", span, blocks, form="csv")


@endpoint(
    "get", "exports_events", query=SpanQuery, files=("application/jsonl",), errors=(ExportsBusy,), scope=Scope.USAGE
)
def events_export(request: HttpRequest) -> StreamingHttpResponse:
    """Export what was measured, one CloudEvent per line; `source` and `id` of an event never change."""
    query = SpanQuery.read(request.GET.dict())
    span = _span(request, query)
    return _file("events", span, exports.events(span), form="jsonl")


def _span(request: HttpRequest, query: SpanQuery) -> Span:
    return Span(tenant=caller(request).tenant.slug, **query.days(clock.now().date()))


def _file(kind: str, span: Span, blocks: Iterator[bytes], *, form: str, part: str = "") -> StreamingHttpResponse:
    """Return a file of `blocks`. The first is read before the answer begins: its failure is answered as an error."""
    name = f"{kind}-{span.tenant}-{part or f'{span.start}-to-{span.end}'}.{form}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Accel-Buffering": "no"}
    sent = _sent(next(blocks, b""), blocks)
    return StreamingHttpResponse(sent, content_type=_CONTENT_TYPES[form], headers=headers)


async def _sent(first: bytes, blocks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the blocks from one thread, as the reader may be slow; close their source when the reader leaves."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="download")
    try:
        yield first
        while block := await asyncio.get_running_loop().run_in_executor(thread, next, blocks, b""):
            yield block
    finally:
        # The thread may still be reading a block; it closes the source after that.
        thread.submit(blocks.close)  # type: ignore[attr-defined]  # of a generator
        thread.shutdown(wait=False)
