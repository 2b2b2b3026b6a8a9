"""Which rows step together."""

from dataclasses import dataclass

import pytest

from inference.scheduler import Scheduler


@dataclass(eq=False)
class Row:
    name: str
    group: str = ""
    latent_tokens: int = 1


def scheduler_of(*rows: Row, rows_max: int = 8, tokens_max: int = 100) -> Scheduler[Row]:
    scheduler: Scheduler[Row] = Scheduler(rows_max=rows_max, tokens_max=tokens_max)
    for row in rows:
        scheduler.add(row)
    return scheduler


def names(batch: list[Row]) -> str:
    return "".join(row.name for row in batch)


@pytest.mark.parametrize(
    ("rows", "rows_max", "tokens_max", "batch"),
    [
        ([], 8, 100, ""),
        ([Row("a"), Row("b"), Row("c")], 8, 100, "abc"),  # all of a group
        ([Row("a"), Row("b"), Row("c")], 2, 100, "ab"),  # the oldest, up to the rows allowed
        ([Row("a", "x"), Row("b", "y"), Row("c", "x")], 8, 100, "ac"),  # one group at a time
        ([Row("a", latent_tokens=60), Row("b", latent_tokens=60)], 8, 100, "a"),  # up to the tokens allowed
        ([Row("a", latent_tokens=60), Row("b", latent_tokens=60), Row("c", latent_tokens=40)], 8, 100, "ac"),
        ([Row("a", latent_tokens=900), Row("b")], 8, 100, "a"),  # too large for any batch: alone
    ],
)
def test_the_oldest_row_leads_and_its_group_fills_the_batch(rows, rows_max, tokens_max, batch):
    scheduler = scheduler_of(*rows, rows_max=rows_max, tokens_max=tokens_max)
    assert names(scheduler.next_batch()) == batch


def test_groups_take_turns_however_many_rows_one_has():
    crowd = [Row(name, "crowd") for name in "abcdefgh"]
    scheduler = scheduler_of(*crowd, Row("x", "x"), Row("y", "y"), rows_max=2)
    assert [names(scheduler.next_batch()) for _ in range(6)] == ["ab", "x", "y", "ab", "x", "y"]


def test_a_stream_of_new_groups_does_not_starve_an_old_one():
    old = Row("old", "old")
    scheduler = scheduler_of(old)
    stepped = 0
    for i in range(100):
        newcomer = Row(f"new{i}", f"new{i}")
        scheduler.add(newcomer)
        for row in scheduler.next_batch():
            stepped += row is old
            if row is not old:
                scheduler.remove(row)
    assert stepped >= 10


def test_a_group_that_emptied_and_came_back_waits_its_turn():
    first, other = Row("a", "x"), Row("b", "y")
    scheduler = scheduler_of(first, other)
    assert scheduler.next_batch() == [first]
    scheduler.remove(first)
    scheduler.add(Row("c", "x"))
    assert names(scheduler.next_batch()) == "b"


def test_after_running_out_of_memory_batches_stay_smaller():
    scheduler = scheduler_of(*(Row(name, latent_tokens=10) for name in "abcd"))
    assert names(scheduler.next_batch()) == "abcd"
    scheduler.narrow(40)
    assert names(scheduler.next_batch()) == "abc"
