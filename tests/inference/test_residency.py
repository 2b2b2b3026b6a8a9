"""Who lies where, and when merged weights are worth making."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.residency import NEVER_MERGE, AdapterCosts, Places


def test_a_key_keeps_its_place_while_it_is_used_and_after():
    places = Places(2)
    assert places.take(["a"])
    place = places["a"]
    places.release(["a"])
    assert places.take(["a", "b"])
    assert places["a"] == place != places["b"]


def test_the_longest_unused_key_makes_room():
    places = Places(2)
    for key in ("a", "b", "a"):
        places.take([key])
        places.release([key])
    assert places.take(["c"])
    assert "a" in places
    assert "b" not in places


def test_a_key_in_use_makes_no_room():
    places = Places(2)
    places.take(["a", "b"])
    places.release(["a"])
    assert places.take(["c"])
    assert not places.take(["d"])
    assert "b" in places


def test_keys_are_taken_together_or_not_at_all():
    places = Places(2)
    places.take(["a"])
    assert not places.take(["b", "c"])
    assert "b" not in places
    assert places.take(["b"])


def test_the_same_key_twice_is_one_place():
    places = Places(1)
    assert places.take(["a", "a"])
    places.release(["a", "a"])
    assert places.take(["b"])


def test_who_may_not_overtake_takes_only_what_is_in_use():
    places = Places(3)
    places.take(["a", "b"])
    places.release(["b"])
    assert not places.take(["b"], in_use_only=True)
    assert not places.take(["c"], in_use_only=True)
    assert places.take(["a"], in_use_only=True)
    assert places.take([], in_use_only=True)


def test_a_place_that_could_not_be_filled_is_free_at_once():
    places = Places(1)
    places.take(["a"])
    places.drop("a")
    assert "a" not in places
    assert places.take(["b"])


@given(
    wanted=st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=4), max_size=40),
    leaving=st.lists(st.integers(0, 39), max_size=40),
)
def test_keys_in_use_never_share_a_place_and_never_move(wanted, leaving):
    places = Places(4)
    used: list[tuple[list[str], dict[str, int]]] = []
    for i, keys in enumerate(wanted):
        if places.take(keys):
            used.append((keys, {key: places[key] for key in keys}))
        if i in leaving and used:
            places.release(used.pop(0)[0])
        held = {key: place for _, where in used for key, place in where.items()}
        assert all(places[key] == place for key, place in held.items())
        assert len(set(held.values())) == len(held)


COSTS = AdapterCosts(unmerged_per_token=1e-5, merge=0.005, merged_per_step=0.001)


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
