"""Statements of several verbs that go to PostgreSQL together: one round trip for all of them, in libpq's pipeline mode.

A verb that can share a trip is a generator: it yields its one `Statement`, is sent the rows, and then returns or raises
as any verb does. What it does after its rows came is on a trip of its own. So each verb keeps its statement, its checks
and its errors, and whoever calls several of them pays for the network once:

    held, _, waiting = together(hold_steps(…), units_steps(…), queued_steps(…))
"""

from collections.abc import Generator, Mapping
from typing import Any, NamedTuple, TypeVar

import psycopg
from django.db import connection

T = TypeVar("T")
Rows = list[tuple[Any, ...]]


class Statement(NamedTuple):
    """SQL with named parameters; kept prepared by each connection, so that PostgreSQL plans it once."""

    sql: str
    fields: Mapping[str, Any]


Steps = Generator[Statement, Rows, T]


def together(*verbs: Steps[Any]) -> list[Any]:
    """What each verb returns. All statements have been executed, in order, before the first verb checks its rows.

    In the caller's transaction: when a verb raises, none of the statements may be committed.
    """
    statements = [next(verb) for verb in verbs]
    connection.ensure_connection()
    with connection.wrap_database_errors:
        raw: psycopg.Connection[Any] = connection.connection
        # Bound by the server, other than Django's own cursors: a statement is then the same text each time.
        cursors = [psycopg.Cursor(raw) for _ in statements]
        with raw.pipeline():
            for cursor, statement in zip(cursors, statements, strict=True):
                cursor.execute(statement.sql, statement.fields, prepare=True)
        rows = [cursor.fetchall() if cursor.description else [] for cursor in cursors]
    return [_end(verb, its_rows) for verb, its_rows in zip(verbs, rows, strict=True)]


def alone(verb: Steps[T]) -> T:
    """A verb that shares its trip with nothing."""
    (answer,) = together(verb)
    return answer  # type: ignore[no-any-return]


def _end(verb: Steps[T], rows: Rows) -> T:
    try:
        verb.send(rows)
    except StopIteration as end:
        answer: T = end.value
        return answer
    raise TypeError("a verb that shares a trip has one statement")
