"""Slots are allocated least recently used first, and weights are merged when that pays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.residency import NEVER_MERGE, AdapterCosts, SlotAllocator


def test_a_key_keeps_its_slot_while_it_is_used_and_after():
    allocator = SlotAllocator(2)
    assert allocator.acquire(["a"])
    slot = allocator["a"]
    allocator.release(["a"])
    assert allocator.acquire(["a", "b"])
    assert allocator["a"] == slot != allocator["b"]


def test_the_least_recently_used_key_is_evicted():
    allocator = SlotAllocator(2)
    for key in ("a", "b", "a"):
        allocator.acquire([key])
        allocator.release([key])
    assert allocator.acquire(["c"])
    assert "a" in allocator
    assert "b" not in allocator


def test_a_key_in_use_is_not_evicted():
    allocator = SlotAllocator(2)
    allocator.acquire(["a", "b"])
    allocator.release(["a"])
    assert allocator.acquire(["c"])
    assert not allocator.acquire(["d"])
    assert "b" in allocator


def test_either_all_keys_are_acquired_or_none():
    allocator = SlotAllocator(2)
    allocator.acquire(["a"])
    assert not allocator.acquire(["b", "c"])
    assert "b" not in allocator
    assert allocator.acquire(["b"])


def test_the_same_key_twice_takes_one_slot():
    allocator = SlotAllocator(1)
    assert allocator.acquire(["a", "a"])
    allocator.release(["a", "a"])
    assert allocator.acquire(["b"])


def test_in_use_only_acquires_only_keys_in_use():
    allocator = SlotAllocator(3)
    allocator.acquire(["a", "b"])
    allocator.release(["b"])
    assert not allocator.acquire(["b"], in_use_only=True)
    assert not allocator.acquire(["c"], in_use_only=True)
    assert allocator.acquire(["a"], in_use_only=True)
    assert allocator.acquire([], in_use_only=True)


def test_a_slot_that_could_not_be_filled_is_free_at_once():
    allocator = SlotAllocator(1)
    allocator.acquire(["a"])
    allocator.drop("a")
    assert "a" not in allocator
    assert allocator.acquire(["b"])


@given(
    wanted=st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=4), max_size=40),
    leaving=st.lists(st.integers(0, 39), max_size=40),
)
def test_keys_in_use_never_share_a_slot_and_never_move(wanted, leaving):
    allocator = SlotAllocator(4)
    held_keys: list[tuple[list[str], dict[str, int]]] = []
    for i, keys in enumerate(wanted):
        if allocator.acquire(keys):
            held_keys.append((keys, {key: allocator[key] for key in keys}))
        if i in leaving and held_keys:
            allocator.release(held_keys.pop(0)[0])
        held = {key: slot for _, slots in held_keys for key, slot in slots.items()}
        assert all(allocator[key] == slot for key, slot in held.items())
        assert len(set(held.values())) == len(held)


COSTS = AdapterCosts(unmerged_per_token_seconds=1e-5, merge_seconds=0.005, merged_per_step_seconds=0.001)


@pytest.mark.parametrize(
    ("token_steps", "steps", "pays"),
    [
        (8 * 1056, 8, True),  # a large image: 84 ms unmerged against 13
        (8 * 96, 8, False),  # a small one: 8 ms against 13
        (8 * 96 * 2, 8, True),  # two small ones share the weights and the product
        (1056, 1, True),
        (500, 1, False),
    ],
)
def test_weights_are_merged_when_the_work_left_pays_for_it(token_steps, steps, pays):
    assert COSTS.merging_pays(token_steps=token_steps, steps=steps) is pays
    assert not NEVER_MERGE.merging_pays(token_steps=token_steps, steps=steps)


@pytest.mark.parametrize(("tokens", "faster"), [(96, False), (192, True)])
def test_merged_weights_are_used_for_steps_that_they_make_faster(tokens, faster):
    assert COSTS.merged_is_faster(tokens=tokens) is faster
