"""Exports of charges and use in a range of days: of one snapshot, at constant memory.

PostgreSQL writes CSV and JSON (COPY); Parquet is written from batches of rows. Each export is an iterator of bytes on a
database connection of its own, since a download outlives the thread that started it.
"""

import io
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any, LiteralString

import psycopg
from django.conf import settings
from psycopg import sql

from core.errors import DomainError

# Each export occupies a connection until its reader has finished.
RUNNING_MAX = 4
_BATCH_ROWS = 5_000
_NUMERIC, _TIMESTAMPTZ, _JSONB, _BIGINT = 1700, 1184, 3802, 20  # oids of types
# How a column of a type is selected; others are as they are.
_CSV: dict[int, LiteralString] = {
    _TIMESTAMPTZ: "to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS {0}",
    _NUMERIC: "trim_scale({0}) AS {0}",
}
_PARQUET: dict[int, LiteralString] = {_JSONB: "{0}::text AS {0}", _NUMERIC: "trim_scale({0}) AS {0}"}
_running = threading.BoundedSemaphore(RUNNING_MAX)

# Labels that a spreadsheet would take for a formula get a leading quote.
_COSTS = r"""
    SELECT day, tenant, project, regexp_replace(department, '^[=+@\t\r-]', '''\&') AS department,
           (SELECT coalesce(regexp_replace(string_agg(key || ': ' || value, ', ' ORDER BY key), '^[=+@\t\r-]', '''\&'),
                            '') FROM jsonb_each_text(labels)) AS labels,
           meter, model, model_version, adapter, quality, tier, resolution, api_key, gpu_class, storage_kind,
           replace(trim_scale(sum(quantity))::text, '.', {mark}) AS quantity,
           sum(charges) AS charges,
           replace(trim_scale(sum(amount_micros) / 1e6)::text, '.', {mark}) AS amount,
           replace(trim_scale(sum(list_micros) / 1e6)::text, '.', {mark}) AS list_amount,
           currency
      FROM reporting.costs
     WHERE day BETWEEN {start} AND {end} AND {of_tenant}
     GROUP BY day, tenant, project, reporting.costs.department, reporting.costs.labels, meter, model, model_version,
              adapter, quality, tier, resolution, api_key, gpu_class, storage_kind, currency
     ORDER BY day, tenant, project, meter, model, resolution
"""


class ParquetUnavailable(DomainError, code="parquet_unavailable", type="server_error", http_status=501):
    """Parquet is not installed here: take CSV, or install `easel[parquet]`.

    Send `format=csv`, or have the operator install `easel[parquet]`.
    """


class ExportsBusy(DomainError, code="exports_busy", http_status=429, retryable=True):
    """Too many exports are running: try again in a minute.

    Repeat the request in a minute.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The days (UTC) from `start` to `end`, both included; of one tenant, by its slug, or of all."""

    start: date
    end: date
    tenant: str | None = None

    def condition(self, column: str, tenant: str) -> sql.Composed:
        """Return the SQL condition for rows whose `column`, an instant, is in the span and whose `tenant` matches."""
        return sql.SQL(
            "{column} >= {start}::date::timestamp AT TIME ZONE 'UTC'"
            " AND {column} < ({end}::date + 1)::timestamp AT TIME ZONE 'UTC' AND {of_tenant}"
        ).format(column=sql.Identifier(column), start=self.start, end=self.end, of_tenant=self.of_tenant(tenant))

    def of_tenant(self, column: str) -> sql.Composed:
        if self.tenant is None:
            return sql.SQL("true").format()
        return sql.SQL("{} = {}").format(sql.Identifier(column), self.tenant)


def focus(span: Span, *, form: str, invoice: int | None = None) -> Iterator[bytes]:
    """Export `reporting.focus` as `csv` or `parquet`: rows of the days, or instead all rows of an invoice."""
    where = span.condition("ChargePeriodStart", "BillingAccountId")
    if invoice is not None:
        where = sql.SQL('"InvoiceId" = {} AND {}').format(str(invoice), span.of_tenant("BillingAccountId"))
    with _snapshot() as database:
        described = database.execute("SELECT * FROM reporting.focus LIMIT 0").description or []
        columns = [(column.name, column.type_code) for column in described]
        shown = _PARQUET if form == "parquet" else _CSV
        names = (sql.SQL(shown.get(oid, "{0}")).format(sql.Identifier(name)) for name, oid in columns)
        rows = sql.SQL("SELECT {} FROM reporting.focus WHERE {}").format(sql.SQL(", ").join(names), where)
        if form == "parquet":
            yield from _parquet(database, columns, rows)
        else:
            yield from _copied(database, sql.SQL("COPY ({}) TO STDOUT (FORMAT csv, HEADER)").format(rows))


def events(span: Span) -> Iterator[bytes]:
    """Export `reporting.usage_events` of the days, one CloudEvent per line."""
    where = span.condition("used_at", "tenant")
    rows = sql.SQL("SELECT event::text FROM reporting.usage_events WHERE {}").format(where)
    # As CSV with a quote and a delimiter that JSON never contains: COPY's text format would double backslashes.
    lines = sql.SQL(r"COPY ({}) TO STDOUT (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02')").format(rows)
    with _snapshot() as database:
        yield from _copied(database, lines)


def costs(span: Span, *, comma: bool) -> Iterator[bytes]:
    """Export `reporting.costs` by day and attributes, as CSV for a spreadsheet; `comma`: with decimal commas."""
    mark, delimiter = (",", ";") if comma else (".", ",")
    rows = sql.SQL(_COSTS).format(start=span.start, end=span.end, mark=mark, of_tenant=span.of_tenant("tenant"))
    copy = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv, HEADER, DELIMITER {})").format(rows, delimiter)
    with _snapshot() as database:
        yield from _copied(database, copy)


@contextmanager
def _snapshot() -> Iterator[psycopg.Connection]:
    if not _running.acquire(blocking=False):
        raise ExportsBusy(f"{RUNNING_MAX} exports are running here: try again in a minute")
    try:
        with closing(psycopg.connect(settings.EASEL.database_url)) as database:
            database.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            # A slow reader must not occupy the connection forever.
            database.execute("SET LOCAL idle_in_transaction_session_timeout = '5min'")
            database.execute("SET LOCAL TimeZone = 'UTC'")
            yield database
    finally:
        _running.release()


def _copied(database: psycopg.Connection, statement: sql.Composed) -> Iterator[bytes]:
    with database.cursor() as cursor, cursor.copy(statement) as copy:
        waiting, size = [], 0
        for block in copy:  # each block is a row
            waiting.append(bytes(block))
            size += len(block)
            if size >= 2**16:
                yield b"".join(waiting)
                waiting, size = [], 0
        yield b"".join(waiting)


def _parquet(database: psycopg.Connection, columns: list[tuple[str, int]], rows_of: sql.Composed) -> Iterator[bytes]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise ParquetUnavailable from error

    types = {_NUMERIC: pa.decimal128(38, 15), _TIMESTAMPTZ: pa.timestamp("us", tz="UTC"), _BIGINT: pa.int64()}
    schema = pa.schema([(name, types.get(oid, pa.string())) for name, oid in columns])
    file = _Drained()
    writer = pq.ParquetWriter(file, schema, compression="zstd")
    with database.cursor("focus") as cursor:
        cursor.execute(rows_of)
        while rows := cursor.fetchmany(_BATCH_ROWS):
            by_column = zip(zip(*rows, strict=True), schema.types, strict=True)
            arrays = [pa.array(values, kind) for values, kind in by_column]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
            yield file.take()
    writer.close()
    yield file.take()


class _Drained(io.RawIOBase):
    """A file whose written bytes are taken piece by piece."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.pieces.append(bytes(data))
        self.size += len(self.pieces[-1])
        return len(self.pieces[-1])

    def tell(self) -> int:
        return self.size

    def take(self) -> bytes:
        pieces, self.pieces = self.pieces, []
        return b"".join(pieces)
