import pytest

from easel.serving.errors import RolloutEnded, RolloutInvalid, RolloutRunning
from easel.serving.models import Rollout, Route
from easel.serving.rollouts import RolloutPlan, rollout_advance, rollout_promote, rollout_roll_back, rollout_start
from easel.serving.routing import routes_set
from tests.conftest import NOW


def weights(model):
    return dict(Route.objects.filter(model=model).values_list("version__number", "weight"))


@pytest.fixture
def rollout(second, plan):
    return rollout_start(candidate=second, plan=plan, now=NOW)


def test_a_rollout_gives_the_candidate_its_first_share(rollout):
    assert weights(rollout.model) == {1: 80, 2: 20}


def test_the_last_stage_gives_the_candidate_all_callers_and_then_promotes_it(rollout):
    last = rollout_advance(rollout, verdict="healthy", now=NOW)
    assert (last.state, weights(rollout.model)) == ("running", {2: 100})
    assert rollout_advance(last, verdict="healthy", now=NOW).state == "promoted"
    assert weights(rollout.model) == {2: 100}


def test_a_roll_back_gives_the_stable_version_all_callers_and_says_why(rollout):
    ended = rollout_roll_back(rollout, verdict="too slow", now=NOW)
    assert (ended.state, ended.verdict, ended.ended_at) == ("rolled_back", "too slow", NOW)
    assert weights(rollout.model) == {1: 100}


def test_a_promotion_skips_the_stages(rollout):
    assert rollout_promote(rollout, verdict="by an operator", now=NOW).state == "promoted"
    assert weights(rollout.model) == {2: 100}


@pytest.mark.parametrize("move", [rollout_advance, rollout_promote, rollout_roll_back])
def test_an_ended_rollout_stays_as_it_is(rollout, move):
    rollout_roll_back(rollout, verdict="too slow", now=NOW)
    with pytest.raises(RolloutEnded):
        move(rollout, verdict="again", now=NOW)
    assert weights(rollout.model) == {1: 100}


def test_two_schedulers_that_decide_on_the_same_stage_advance_it_once(rollout):
    seen_by_the_other = Rollout.objects.get(pk=rollout.pk)
    rollout_advance(rollout, verdict="healthy", now=NOW)
    assert rollout_advance(seen_by_the_other, verdict="healthy", now=NOW).stage == 1


def test_a_model_has_one_rollout_at_a_time(rollout, second, plan):
    with pytest.raises(RolloutRunning):
        rollout_start(candidate=second, plan=plan, now=NOW)


def test_a_version_can_not_take_over_from_itself(version, plan):
    with pytest.raises(RolloutInvalid, match="serves"):
        rollout_start(candidate=version, plan=plan, now=NOW)


def test_a_model_that_two_versions_share_has_no_stable_version(version, second, plan):
    routes_set(model=version.model, weights={1: 50, 2: 50})
    with pytest.raises(RolloutInvalid, match="shared by 2 versions"):
        rollout_start(candidate=second, plan=plan, now=NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"stages": ()},
        {"stages": (5, 50)},  # never 100
        {"stages": (50, 5, 100)},
        {"stages": (0, 100)},
        {"stages": (-5, 100)},
        {"stages": (5, 5, 100)},
        {"stages": (50, 150)},
        {"jobs_min": 0},
        {"error_rate_max": 1.5},
        {"error_rate_max": float("nan")},
        {"p95_ratio_max": 0},
        {"stage_seconds": -1},
    ],
)
def test_an_invalid_plan_is_refused_and_no_route_changes(version, second, change):
    with pytest.raises(RolloutInvalid):
        rollout_start(candidate=second, plan=RolloutPlan(**change), now=NOW)
    assert weights(version.model) == {1: 100}
