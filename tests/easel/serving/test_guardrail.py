from collections import Counter
from datetime import timedelta

import pytest

from core.models import AuditEvent
from easel.serving.guardrail import Decision, Sample, decide, rollouts_decide
from easel.serving.models import Rollout
from easel.serving.rollouts import rollout_start
from easel.serving.routing import routes_set
from tests.conftest import NOW

MINUTE = timedelta(seconds=60)
STABLE = Sample(ended=100, failed=1, p95_seconds=2.0)


@pytest.fixture
def rollout(second, plan):
    return rollout_start(candidate=second, plan=plan, now=NOW)


@pytest.mark.parametrize(
    ("candidate", "after", "decision", "says"),
    [
        (Sample(ended=5, failed=0, p95_seconds=2.0), MINUTE, Decision.ADVANCE, "healthy"),
        (Sample(ended=5, failed=0, p95_seconds=2.0), MINUTE / 2, Decision.WAIT, "this stage lasts 60 s"),
        (Sample(ended=0, failed=0, p95_seconds=None), 10 * MINUTE, Decision.WAIT, "has 0 of the 5 jobs needed"),
        (Sample(ended=4, failed=0, p95_seconds=2.0), 10 * MINUTE, Decision.WAIT, "has 4 of the 5 jobs needed"),
        (
            Sample(ended=5, failed=1, p95_seconds=2.0),
            MINUTE,
            Decision.ADVANCE,
            "1 of 5 jobs failed",
        ),  # the limit of a fifth
        (Sample(ended=5, failed=2, p95_seconds=2.0), MINUTE, Decision.ROLL_BACK, "2 of 5 jobs failed"),
        (
            Sample(ended=2, failed=2, p95_seconds=None),
            MINUTE / 9,
            Decision.ROLL_BACK,
            "2 of 2",
        ),  # too many of 5
        (Sample(ended=1, failed=1, p95_seconds=None), MINUTE, Decision.WAIT, "has 1 of the 5"),
        (Sample(ended=5, failed=0, p95_seconds=4.0), MINUTE, Decision.ADVANCE, "p95 4.00 s"),  # the limit of twice
        (Sample(ended=5, failed=0, p95_seconds=4.1), MINUTE / 9, Decision.ROLL_BACK, "2.05 times"),
    ],
)
def test_the_decision_depends_on_errors_p95_and_time(rollout, candidate, after, decision, says):
    found, why = decide(rollout, candidate=candidate, stable=STABLE, now=NOW + after)
    assert found is decision
    assert says in why


def test_the_guardrail_waits_for_jobs_of_the_stable_version(rollout):
    stable = Sample(ended=2, failed=0, p95_seconds=1.0)
    found, why = decide(rollout, candidate=STABLE, stable=stable, now=NOW + MINUTE)
    assert (found, why) == (Decision.WAIT, "waits for data: the stable version has 2 of the 5 jobs needed")


@pytest.fixture
def traffic(alice, submit, end):
    """Five ended jobs of each version, or some more: `traffic(candidate_seconds=9)`."""

    def make(*, candidate_seconds=1.0, candidate_outcome="succeeded"):
        ended = Counter()
        while min(ended[1], ended[2]) < 5:
            job = submit(alice, user=f"user {ended.total()}", now=NOW + timedelta(seconds=1))
            ended[job.model_version.number] += 1
            candidate = job.model_version.number == 2
            end(
                job,
                seconds=candidate_seconds if candidate else 1.0,
                outcome=candidate_outcome if candidate else "succeeded",
            )

    return make


def state_of(rollout):
    found = Rollout.objects.get(pk=rollout.pk)
    return found.state, found.stage


def test_a_healthy_canary_advances_to_the_next_stage(rollout, traffic):
    traffic()
    rollouts_decide(now=NOW + MINUTE)
    assert state_of(rollout) == ("running", 1)


def test_a_failing_canary_is_rolled_back_and_recorded(rollout, traffic):
    traffic(candidate_outcome="failed")
    rollouts_decide(now=NOW + MINUTE / 2)
    assert state_of(rollout) == ("rolled_back", 0)
    event = AuditEvent.objects.get(subject=rollout.candidate.label)
    assert (event.actor, event.action) == ("platform", "rollout.roll_back")
    assert "jobs failed" in event.details["verdict"]


def test_a_slow_canary_is_rolled_back(rollout, traffic):
    traffic(candidate_seconds=9.0)
    rollouts_decide(now=NOW + MINUTE / 2)
    assert state_of(rollout) == ("rolled_back", 0)


def test_a_canary_without_traffic_waits_and_says_so(rollout):
    rollouts_decide(now=NOW + 100 * MINUTE)
    assert state_of(rollout) == ("running", 0)
    assert "waits for data" in Rollout.objects.get(pk=rollout.pk).verdict


def test_jobs_from_before_a_stage_are_not_in_its_sample(rollout, traffic, version, second):
    traffic()
    Rollout.objects.filter(pk=rollout.pk).update(stage_started_at=NOW + MINUTE)
    rollouts_decide(now=NOW + 10 * MINUTE)
    assert state_of(rollout) == ("running", 0)


def test_jobs_of_a_retried_rollout_do_not_count_against_it(alice, version, second, plan, submit, end):
    routes_set(model=version.model, weights={2: 100})
    for _ in range(5):
        end(submit(alice, now=NOW - MINUTE), outcome="failed")
    routes_set(model=version.model, weights={1: 100})
    again = rollout_start(candidate=second, plan=plan, now=NOW)
    rollouts_decide(now=NOW)
    assert state_of(again) == ("running", 0)
