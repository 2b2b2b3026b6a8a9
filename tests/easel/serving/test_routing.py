import uuid
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from django.db import IntegrityError, transaction
from hypothesis import given
from hypothesis import strategies as st

from easel.catalog.errors import VersionIncompatible, VersionInUse, VersionNotFound
from easel.seed import DEMO_LIMITS
from easel.serving.errors import RolloutRunning, WeightsInvalid
from easel.serving.models import Route
from easel.serving.rollouts import rollout_start
from easel.serving.routing import bucket_of, main_version, routes_set, share_of, version_for
from easel.serving.versions import version_register, version_retire
from tests.conftest import NOW


def serving(model, callers=200):
    """How many of the callers each version serves."""
    return Counter(version_for(model, caller=f"caller {number}").number for number in range(callers))


def test_a_first_version_serves_all_of_its_model(version):
    assert serving(version.model) == {1: 200}


def test_a_further_version_serves_nobody_until_it_is_routed_to(version, second):
    assert serving(version.model) == {1: 200}
    routes_set(model=version.model, weights={2: 100})
    assert serving(version.model) == {2: 200}


def test_callers_are_assigned_by_weight(version, second):
    routes_set(model=version.model, weights={1: 70, 2: 30})
    assert 40 < serving(version.model)[2] < 80  # of 200, where 60 are expected


def test_a_caller_keeps_its_version(version, second):
    routes_set(model=version.model, weights={1: 50, 2: 50})
    first = {caller: version_for(version.model, caller=caller) for caller in map(str, range(50))}
    assert first == {caller: version_for(version.model, caller=caller) for caller in first}


def test_callers_of_a_newer_version_stay_with_it_while_its_share_grows(version, second):
    callers = [str(number) for number in range(100)]
    moved = set()
    for share in (5, 25, 50, 99):
        routes_set(model=version.model, weights={2: share, 1: 100 - share})
        now_there = {caller for caller in callers if version_for(version.model, caller=caller) == second}
        assert moved <= now_there
        moved = now_there


def test_the_main_version_has_the_largest_weight(version, second):
    routes_set(model=version.model, weights={1: 49, 2: 51})
    assert main_version(version.model.name) == second


@pytest.mark.parametrize("weights", [{1: 50, 2: 49}, {1: 101}, {1: 120, 2: -20}, {1: 100, 2: 0}, {}])
def test_weights_are_percents_that_sum_to_100(version, second, weights):
    with pytest.raises(WeightsInvalid):
        routes_set(model=version.model, weights=weights)
    assert serving(version.model) == {1: 200}


def test_the_database_refuses_weights_that_do_not_sum_to_100(version):
    with pytest.raises(IntegrityError, match="sum to 60"), transaction.atomic():
        Route.objects.filter(model=version.model).update(weight=60)


def test_a_version_that_is_not_there_can_not_be_routed_to(version):
    with pytest.raises(VersionNotFound):
        routes_set(model=version.model, weights={1: 50, 7: 50})


def test_routes_stay_as_they_are_while_a_rollout_runs(version, second, plan):
    rollout_start(candidate=second, plan=plan, now=NOW)
    with pytest.raises(RolloutRunning):
        routes_set(model=version.model, weights={1: 100})


def test_a_version_that_serves_requests_can_not_be_retired(version, second):
    with pytest.raises(VersionInUse):
        version_retire(version, now=NOW)
    version_retire(second, now=NOW)
    with pytest.raises(VersionNotFound):
        routes_set(model=version.model, weights={2: 100})


def test_registering_an_equal_version_returns_it(version, second):
    limits = replace(DEMO_LIMITS, steps_default=4)
    again = version_register(
        model_name=version.model.name, checkpoint=version.checkpoint, pool=version.pool, limits=limits, now=NOW
    )
    assert again == second


def test_a_checkpoint_of_another_shape_is_no_version_of_the_model(version, tmp_path):
    config = tmp_path / "transformer" / "config.json"
    config.write_text(config.read_text().replace('"n_layers": 2', '"n_layers": 3'))
    with pytest.raises(VersionIncompatible):
        version_register(
            model_name=version.model.name, checkpoint=str(tmp_path), pool=version.pool, limits=DEMO_LIMITS, now=NOW
        )


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_bucket_is_one_of_a_hundred_and_deterministic(salt, caller):
    assert bucket_of(salt, caller) == bucket_of(salt, caller)
    assert 0 <= bucket_of(salt, caller) < 100


def test_buckets_are_even():
    """Chi-squared of 10,000 callers over 100 buckets, 99 degrees of freedom: below 149 in 999 of 1,000 cases."""
    counts = Counter(bucket_of("model", str(uuid.UUID(int=number))) for number in range(10_000))
    assert sum((counts[bucket] - 100) ** 2 / 100 for bucket in range(100)) < 149


@given(st.lists(st.integers(1, 99), min_size=1, max_size=5), st.integers(0, 99))
def test_every_bucket_has_one_share(cuts, bucket):
    edges = sorted({0, *cuts, 100})
    shares = [(number, end - start) for number, (start, end) in enumerate(pairwise(edges))]
    number = share_of(shares, bucket=bucket)
    assert edges[number] <= bucket < edges[number + 1]
