"""Queries of several functions that share a round trip."""

from collections.abc import Generator
from typing import Any

import pytest
from django.db import DataError, connection, transaction
from psycopg.errors import Diagnostic

from core.pipeline import PipelinedQuery, Query, run_pipelined, run_query
from easel.observability.database_watch import WatchedConnection


def doubled(number: int) -> PipelinedQuery[int]:
    ((answer,),) = yield Query("SELECT %(number)s::int * 2", {"number": number})
    return int(answer)


def rows_of(sql: str, **parameters: Any) -> PipelinedQuery[list[tuple[Any, ...]]]:
    return (yield Query(sql, parameters))


def divided(number: int) -> PipelinedQuery[int]:
    ((answer,),) = yield Query("SELECT 1 / %(number)s::int", {"number": number})
    return int(answer)


@pytest.fixture
def table() -> Generator[None]:
    """A table of numbers, which lives as long as its connection's transaction."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE number (value int) ON COMMIT DROP")
        yield


def test_each_function_is_sent_the_rows_of_its_own_query() -> None:
    assert run_pipelined(doubled(1), doubled(2), doubled(3)) == [2, 4, 6]


def test_queries_run_in_their_order(table: None) -> None:
    first, _, second = run_pipelined(
        rows_of("SELECT count(*) FROM number"),
        rows_of("INSERT INTO number VALUES (%(value)s)", value=7),
        rows_of("SELECT value FROM number"),
    )
    assert (first, second) == ([(0,)], [(7,)])


def test_a_statement_without_rows_answers_with_none(table: None) -> None:
    assert run_query(rows_of("INSERT INTO number VALUES (%(value)s)", value=1)) == []


def test_a_query_that_finds_nothing_answers_with_no_rows(table: None) -> None:
    assert run_query(rows_of("SELECT value FROM number")) == []


def test_a_query_that_fails_raises_its_error_and_leaves_the_connection_usable(table: None) -> None:
    with pytest.raises(DataError, match="division by zero"), transaction.atomic():
        run_pipelined(rows_of("INSERT INTO number VALUES (1)"), divided(0), doubled(2))
    assert run_query(rows_of("SELECT value FROM number")) == []
    assert run_query(doubled(4)) == 8


def test_a_query_whose_parameter_is_missing_leaves_the_connection_usable(table: None) -> None:
    with pytest.raises(Exception, match="value"), transaction.atomic():
        run_pipelined(rows_of("INSERT INTO number VALUES (1)"), rows_of("SELECT %(value)s::int"))
    assert run_query(rows_of("SELECT value FROM number")) == []


def test_parameters_longer_than_the_buffers_of_the_connection_arrive_whole() -> None:
    texts = [str(digit) * 2**20 for digit in range(5)]
    found = run_pipelined(*(rows_of("SELECT %(text)s::text", text=text) for text in texts))
    assert found == [[(text,)] for text in texts]


def test_a_transaction_begins_once_however_many_queries_it_begins_with() -> None:
    warnings: list[str | None] = []

    def note(warning: Diagnostic) -> None:
        warnings.append(warning.message_primary)

    with transaction.atomic():
        connection.ensure_connection()
        connection.connection.add_notice_handler(note)
        run_pipelined(doubled(1), doubled(2))
        run_pipelined(doubled(3))
        connection.connection.remove_notice_handler(note)
    assert warnings == []


def test_what_a_rolled_back_transaction_pipelined_is_not_committed(table: None) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        run_pipelined(rows_of("INSERT INTO number VALUES (1)"), rows_of("INSERT INTO number VALUES (2)"))
        raise RuntimeError
    assert run_query(rows_of("SELECT value FROM number")) == []


def test_the_queries_leave_in_one_packet(monkeypatch: pytest.MonkeyPatch) -> None:
    """psycopg by itself waits twice for each query until it can be sent."""
    waits = []
    wait = WatchedConnection.wait

    def counted(its: WatchedConnection, steps: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        def watched() -> Generator[Any, Any, Any]:
            ready = None
            try:
                while True:
                    wants = steps.send(ready)
                    waits.append(wants)
                    ready = yield wants
            except StopIteration as end:
                return end.value

        return wait(its, watched(), *args, **kwargs)

    run_query(doubled(0))  # prepares it
    monkeypatch.setattr(WatchedConnection, "wait", counted)
    assert run_pipelined(*(doubled(number) for number in range(50))) == [2 * number for number in range(50)]
    assert len(waits) < 25
