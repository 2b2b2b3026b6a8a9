"""Sends the queries of several functions to PostgreSQL in one round trip, in libpq's pipeline mode.

A function whose query can share a round trip is a generator: it yields one `Query`, is sent the rows, and then returns
or raises as any function does. A further query that it runs after its rows came takes a round trip of its own. So each
function keeps its query, its checks and its errors, and a caller of several pays for the network once:

    is_held, jobs_of_month, _ = run_pipelined(hold_take(…), units_take(…), job_insert(…))
"""

from collections.abc import Generator, Mapping
from typing import Any, NamedTuple, TypeVar

import psycopg
from django.db import connection

from core.tenant_scope import ScopedConnection

T = TypeVar("T")
Rows = list[tuple[Any, ...]]


class _Pipeline(psycopg.Pipeline):
    """Sends its queries in one packet when it ends. Rows can be read after that.

    psycopg sends each query as it comes and looks for answers after it. That takes three times the system calls that
    send and wait, at each of which an admission's thread gives up the interpreter and has to get it back. To remove it,
    delete this class and the line of `run_pipelined` that names it: psycopg's own gives the same rows.
    """

    _is_synchronized = False

    def _enqueue_sync(self) -> None:
        super()._enqueue_sync()
        self._is_synchronized = True

    def _communicate_gen(self) -> Generator[Any, Any, None]:
        if self._is_synchronized:
            while self.command_queue:
                self.command_queue.popleft()()  # into libpq's buffer
            yield from super()._communicate_gen()
            self._is_synchronized = False


class Query(NamedTuple):
    """SQL with named parameters. Each connection prepares it, so that PostgreSQL plans it once."""

    sql: str
    parameters: Mapping[str, Any]


PipelinedQuery = Generator[Query, Rows, T]


def run_pipelined(*functions: PipelinedQuery[Any]) -> list[Any]:
    """Return what each function returns. Every query is executed, in order, before the first function sees its rows.

    The queries run in the caller's transaction: when a function raises, none of them may be committed.
    """
    queries = [next(function) for function in functions]
    connection.ensure_connection()
    with connection.wrap_database_errors:
        raw: ScopedConnection = connection.connection
        # The server binds the parameters, unlike with Django's cursors: the text stays the same, so it is planned once.
        cursors = [psycopg.Cursor(raw) for _ in queries]
        raw._pipeline = _Pipeline(raw)  # `raw.pipeline()` uses it, and would make psycopg's own otherwise
        with raw.pipeline():
            if scope := raw.scope_query():
                psycopg.Cursor(raw).execute(*scope, prepare=True)
            for cursor, query in zip(cursors, queries, strict=True):
                cursor.execute(query.sql, query.parameters, prepare=True)
        # `description` would tell rows from none, too, but makes an object of each column.
        rows = [[] if cursor.rownumber is None else cursor.fetchall() for cursor in cursors]
    return [_finish(function, its_rows) for function, its_rows in zip(functions, rows, strict=True)]


def run_query(function: PipelinedQuery[T]) -> T:
    """Run one function, on a round trip of its own."""
    (answer,) = run_pipelined(function)
    return answer  # type: ignore[no-any-return]


def query_rows(sql: str, **parameters: Any) -> PipelinedQuery[Rows]:
    """Return the rows of a query that needs no check."""
    return (yield Query(sql, parameters))


def _finish(function: PipelinedQuery[T], rows: Rows) -> T:
    try:
        function.send(rows)
    except StopIteration as end:
        answer: T = end.value
        return answer
    raise TypeError("a function that shares a round trip has one query")
