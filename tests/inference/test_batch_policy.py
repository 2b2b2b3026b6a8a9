"""The choice of rows for the next step."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.scheduler import Scheduler


@dataclass(eq=False)
class Row:
    name: str
    tenant: str = "acme"
    tokens: int = 1
    work: float = 1.0
    steps_left: int = 8
    yields: bool = False


def scheduler_of(*rows: Row, tokens_max: int = 100, work_max: float = 100.0) -> Scheduler[Row]:
    scheduler: Scheduler[Row] = Scheduler(tokens_max=tokens_max, work_max=work_max)
    for row in rows:
        scheduler.add(row)
    return scheduler


def names(batch: list[Row]) -> str:
    return "".join(row.name for row in batch)


def run(scheduler: Scheduler[Row]) -> list[Row]:
    """One step; the rows that it finished leave."""
    batch = scheduler.next_batch()
    for row in batch:
        row.steps_left -= 1
        if not row.steps_left:
            scheduler.remove(row)
    return batch


@pytest.mark.parametrize(
    ("rows", "batch"),
    [
        ([], ""),
        ([Row("a"), Row("b"), Row("c")], "abc"),  # all there are
        ([Row("a", tokens=60), Row("b", tokens=60), Row("c", tokens=40)], "ac"),  # up to the tokens allowed
        ([Row("a", work=60), Row("b", work=60), Row("c", work=40)], "ca"),  # up to the work allowed
        ([Row("a", tokens=900), Row("b")], "a"),  # too large for any step: alone
        ([Row("a", work=5), Row("b", work=21), Row("c", work=19)], "ac"),  # nothing much larger than the first
        ([Row("a", work=900, steps_left=1), Row("b", work=800, steps_left=2)], "a"),
        ([Row("a"), Row("b"), Row("x", "other"), Row("y", "other")], "axby"),  # tenants in turn
        ([Row("a", yields=True), Row("b"), Row("x", "other", yields=True), Row("y", "other")], "by"),  # not a, nor x
        ([Row("a", yields=True), Row("x", "other", yields=True)], "ax"),  # nobody to yield to
    ],
)
def test_a_step_takes_rows_in_turn_up_to_its_limits(rows, batch):
    assert names(scheduler_of(*rows).next_batch()) == batch


def test_rows_of_one_size_finish_in_the_order_of_their_arrival():
    scheduler = scheduler_of(*(Row(name) for name in "abcd"), work_max=1)
    ended = ""
    while len(scheduler):
        ended += names([row for row in run(scheduler) if not row.steps_left])
    assert ended == "abcd"


def test_a_small_row_overtakes_the_large_ones_of_its_tenant():
    scheduler = scheduler_of(*(Row(name, work=100) for name in "abcdefgh"))
    for _ in range(10):
        run(scheduler)
    scheduler.add(Row("x", work=5))
    assert "x" in names(run(scheduler))


def test_a_stream_of_small_rows_does_not_starve_a_large_one():
    large = Row("large", work=100, steps_left=8)
    scheduler = scheduler_of(large, work_max=100)
    for i in range(1000):
        scheduler.add(Row(f"small{i}", work=50, steps_left=1))
        run(scheduler)
        if not large.steps_left:
            return
    pytest.fail(f"{large.steps_left} steps left after 1000")


def test_a_tenant_that_floods_takes_no_more_than_its_share():
    flood = [Row(f"f{i}", "flood", steps_left=10**9) for i in range(50)]
    scheduler = scheduler_of(*flood, Row("x", "quiet", steps_left=10**9), work_max=1)
    served = Counter(run(scheduler)[0].tenant for _ in range(100))
    assert served == {"flood": 50, "quiet": 50}


def test_a_tenant_earns_no_credit_by_idling():
    busy = Row("b", "busy", steps_left=10**9)
    scheduler = scheduler_of(busy, work_max=1)
    for _ in range(100):
        run(scheduler)
    scheduler.add(Row("x", "idle", steps_left=10**9))
    assert Counter(run(scheduler)[0].tenant for _ in range(20)) == {"busy": 10, "idle": 10}


def test_after_running_out_of_memory_steps_stay_smaller():
    scheduler = scheduler_of(*(Row(name, tokens=10) for name in "abcd"))
    assert names(scheduler.next_batch()) == "abcd"
    scheduler.lower_tokens_max(40)
    assert names(scheduler.next_batch()) == "abc"


def test_rows_that_yield_step_only_while_there_are_no_others():
    scheduler = scheduler_of(Row("y", yields=True, steps_left=5))
    assert [names(run(scheduler)) for _ in range(2)] == ["y", "y"]
    scheduler.add(Row("a", steps_left=2))
    assert [names(run(scheduler)) for _ in range(6)] == ["a", "a", "y", "y", "y", ""]


@given(
    others=st.lists(st.floats(1, 50), min_size=1, max_size=6),
    yielding=st.lists(st.floats(1, 50), max_size=6),
    steps=st.integers(1, 30),
)
def test_rows_that_yield_change_no_step_of_the_others(others, yielding, steps):
    """Side by side: the same rows with and without others that yield beside them, for the same tenants."""

    def ordinary():
        return [Row(f"{i} ", f"t{i % 3}", work=work, steps_left=5) for i, work in enumerate(others)]

    without = scheduler_of(*ordinary())
    beside = scheduler_of(*(Row("y ", f"t{i % 3}", work=work, yields=True) for i, work in enumerate(yielding)))
    run(beside)
    for row in ordinary():
        beside.add(row)
    for _ in range(steps):
        batch = names(run(without))
        assert not batch or names(run(beside)) == batch


rows = st.builds(
    Row,
    name=st.just("r"),
    tenant=st.sampled_from("abc"),
    tokens=st.integers(1, 150),
    work=st.floats(0.5, 150),
    steps_left=st.integers(1, 9),
    yields=st.booleans(),
)


@given(arrivals=st.lists(st.lists(rows, max_size=4), max_size=12))
def test_every_row_ends_no_step_passes_its_limits_and_no_capacity_idles(arrivals):
    scheduler = scheduler_of()
    todo = list(arrivals)
    steps = 0
    while todo or len(scheduler):
        for row in todo.pop(0) if todo else []:
            scheduler.add(row)
        waiting = scheduler.rows()
        batch = run(scheduler)
        steps += 1
        assert bool(batch) == bool(waiting)
        assert len(batch) <= 1 or sum(row.tokens for row in batch) <= 100
        assert len(batch) <= 1 or sum(row.work for row in batch) <= 100
        assert len(set(map(id, batch))) == len(batch)
    assert steps <= 12 + sum(9 for arrived in arrivals for _ in arrived)


@given(backlog=st.lists(st.lists(st.floats(1, 100), min_size=1, max_size=5), min_size=2, max_size=4))
def test_backlogged_tenants_are_served_alike_but_for_the_largest_step(backlog):
    rows = [Row("r", f"t{i}", work=work, steps_left=10**9) for i, works in enumerate(backlog) for work in works]
    scheduler = scheduler_of(*rows, work_max=1)  # one row a step: what one tenant gets, the others don't
    served = {row.tenant: 0.0 for row in rows}
    for _ in range(100):
        for row in run(scheduler):
            served[row.tenant] += row.work
        assert max(served.values()) - min(served.values()) <= max(row.work for row in rows) * 1.000001
