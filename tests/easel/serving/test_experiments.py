import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from easel.catalog.errors import AdapterInUse, AdapterNotFound, VersionNotFound
from easel.catalog.models import Adapter, AdapterVersion
from easel.jobs.errors import FeedbackExists, JobNotSucceeded
from easel.jobs.feedback import feedback_give
from easel.serving.errors import ExperimentExists, ExperimentInvalid, ExperimentNotFound, WeightsInvalid
from easel.serving.experiment_report import compare, experiment_report
from easel.serving.experiments import ArmPlan, adapter_retire, experiment_get, experiment_start, experiment_stop
from easel.serving.models import Experiment
from tests.conftest import NOW

PLAIN, SHORT = ArmPlan(name="plain", weight=50), ArmPlan(name="short", weight=50, steps=2)


@pytest.fixture
def start(version):
    """Starts an experiment of a tenant: `start(alice, PLAIN, SHORT)`."""

    def make(customer, *arms, name="steps"):
        return experiment_start(
            tenant=customer.tenant, name=name, model_name=version.model.name, arms=arms or (PLAIN, SHORT), now=NOW
        )

    return make


@pytest.fixture
def outline(alice, version):
    """Alice's adapter."""
    adapter = Adapter.objects.create(tenant=alice.tenant, model=version.model, name="outline", created_at=NOW)
    AdapterVersion.objects.create(
        id=uuid.uuid4(), adapter=adapter, number=1, size_bytes=1, rank_max=1, modules=1, created_at=NOW
    )
    return adapter


def arms_of(jobs):
    return {job.arm.name if job.arm else None for job in jobs}


def test_requests_are_assigned_to_arms_and_get_their_parameters(alice, start, submit):
    start(alice)
    jobs = [submit(alice, user=str(number)) for number in range(30)]
    assert arms_of(jobs) == {"plain", "short"}
    assert {job.steps for job in jobs if job.arm.name == "short"} == {2}
    assert {job.steps for job in jobs if job.arm.name == "plain"} == {8}


def test_a_user_keeps_its_arm(alice, start, submit):
    start(alice)
    assert len(arms_of(submit(alice, user="ann") for _ in range(10))) == 1


def test_requests_without_a_user_are_callers_of_their_own(alice, start, submit):
    start(alice)
    assert arms_of(submit(alice) for _ in range(30)) == {"plain", "short"}


def test_a_request_that_sets_a_parameter_of_an_arm_takes_no_part(alice, start, submit):
    start(alice)
    job = submit(alice, steps=5)
    assert (job.arm, job.steps) == (None, 5)


def test_an_arm_brings_its_adapters_and_its_version(alice, start, submit, outline, second):
    start(
        alice,
        ArmPlan(name="plain", weight=1),
        ArmPlan(name="outlined", weight=99, version=2, adapters=(("outline", 0.5),)),
    )
    job = next(job for job in (submit(alice) for _ in range(20)) if job.arm.name == "outlined")
    assert job.model_version == second
    assert [(use.adapter_version.adapter.name, use.scale) for use in job.adapters.all()] == [("outline", 0.5)]


def test_other_tenants_take_no_part(alice, bob, start, submit):
    start(alice)
    assert arms_of(submit(bob) for _ in range(10)) == {None}


def test_a_stopped_experiment_takes_no_more_requests(alice, start, submit):
    start(alice)
    assert experiment_stop(tenant=alice.tenant, name="steps", now=NOW).state == "stopped"
    assert submit(alice).arm is None


def test_another_experiment_may_follow_on_the_same_model_but_not_run_beside_it(alice, start):
    start(alice)
    with pytest.raises(ExperimentExists):
        start(alice, name="another")
    experiment_stop(tenant=alice.tenant, name="steps", now=NOW)
    with pytest.raises(ExperimentExists):
        start(alice)  # the name stays with its report
    start(alice, name="another")


def test_an_experiment_is_visible_to_its_tenant_only(alice, bob, start):
    start(alice)
    with pytest.raises(ExperimentNotFound):
        experiment_get(tenant=bob.tenant, name="steps")
    start(bob)  # the name and the model are free for others


@pytest.mark.parametrize(
    ("arms", "error"),
    [
        ((ArmPlan(name="a", weight=50), ArmPlan(name="b", weight=49)), WeightsInvalid),
        ((ArmPlan(name="a", weight=150), ArmPlan(name="b", weight=-50)), WeightsInvalid),
        ((ArmPlan(name="a", weight=100), ArmPlan(name="b", weight=0)), WeightsInvalid),
        ((ArmPlan(name="a", weight=100),), ExperimentInvalid),
        (tuple(ArmPlan(name=f"a{number}", weight=1) for number in range(100)), ExperimentInvalid),
        ((ArmPlan(name="a", weight=50), ArmPlan(name="a", weight=50)), ExperimentInvalid),
        ((ArmPlan(name="a", weight=50), ArmPlan(name="<b>", weight=50)), ExperimentInvalid),
        ((ArmPlan(name="a", weight=50), ArmPlan(name="b", weight=50, version=9)), VersionNotFound),
        ((ArmPlan(name="a", weight=50), ArmPlan(name="b", weight=50, steps=51)), ExperimentInvalid),
        ((ArmPlan(name="a", weight=50), ArmPlan(name="b", weight=50, steps=0)), ExperimentInvalid),
        ((ArmPlan(name="a", weight=50), ArmPlan(name="b", weight=50, adapters=(("none", 1.0),))), AdapterNotFound),
    ],
)
def test_an_invalid_experiment_is_refused_and_leaves_no_row(alice, start, arms, error):
    with pytest.raises(error):
        start(alice, *arms)
    assert not Experiment.objects.filter(tenant=alice.tenant).exists()


def test_an_arm_that_names_another_tenants_adapter_is_refused_as_if_there_were_none(bob, start, outline):
    with pytest.raises(AdapterNotFound):
        start(bob, PLAIN, ArmPlan(name="stolen", weight=50, adapters=(("outline", 1.0),)))


def test_an_adapter_that_a_running_experiment_uses_can_not_be_retired(alice, start, outline):
    start(alice, PLAIN, ArmPlan(name="outlined", weight=50, adapters=(("outline", 1.0),)))
    with pytest.raises(AdapterInUse):
        adapter_retire(tenant=alice.tenant, name="outline", now=NOW)
    experiment_stop(tenant=alice.tenant, name="steps", now=NOW)
    assert adapter_retire(tenant=alice.tenant, name="outline", now=NOW).retired_at == NOW


def test_feedback_is_given_once_and_is_idempotent(alice, submit, end):
    job = end(submit(alice))
    given = feedback_give(job=job, score=0.5, comment="", now=NOW)
    assert feedback_give(job=job, score=0.5, comment="", now=NOW) == given
    with pytest.raises(FeedbackExists):
        feedback_give(job=job, score=1.0, comment="", now=NOW)


def test_a_job_without_images_takes_no_feedback(alice, submit, end):
    for job in (submit(alice), end(submit(alice), outcome="failed")):
        with pytest.raises(JobNotSucceeded):
            feedback_give(job=job, score=0.5, comment="", now=NOW)


def test_the_report_counts_times_and_costs_by_arm(alice, start, submit, end):
    experiment = start(alice)
    by_arm = {"plain": [], "short": []}
    while min(map(len, by_arm.values())) < 3:
        job = submit(alice)
        by_arm[job.arm.name].append(job)
    for arm, seconds in (("plain", 4.0), ("short", 1.0)):
        for job in by_arm[arm][:2]:
            feedback_give(job=end(job, seconds=seconds, gpu_seconds=seconds), score=seconds / 4, comment="", now=NOW)
        end(by_arm[arm][2], outcome="failed")
    plain, short = experiment_report(experiment)
    assert (plain.arm.name, plain.jobs, plain.succeeded, plain.failed) == ("plain", len(by_arm["plain"]), 2, 1)
    assert (plain.seconds_p50, short.seconds_p95) == (4.0, 1.0)
    # 256x256: a quarter of a unit at 0.002, a request at 0.0005, and the GPU seconds at 0.0001
    assert (plain.cost_micros, short.cost_micros) == (2 * (500 + 500 + 400), 2 * (500 + 500 + 100))
    assert (plain.score.mean, short.score.mean, short.feedback) == (1.0, 0.25, 2)
    assert short.error_rate.mean == pytest.approx(1 / 3)
    assert short.score.difference == -0.75


def test_a_caller_with_many_jobs_is_one_observation(alice, start, submit, end):
    experiment = start(alice)
    jobs = [submit(alice, user="busy") for _ in range(5)]
    for job in jobs:
        feedback_give(job=end(job), score=1.0, comment="", now=NOW)
    (busy,) = (arm for arm in experiment_report(experiment) if arm.jobs)
    assert (busy.feedback, busy.score.callers) == (5, 1)


def test_a_report_without_jobs_has_no_means(alice, start):
    for arm in experiment_report(start(alice)):
        assert (arm.jobs, arm.score.mean, arm.score.p_value, arm.seconds_p50) == (0, None, None, None)


scores = st.lists(st.integers(0, 100).map(lambda percent: percent / 100), max_size=20)


@given(scores, scores)
def test_a_comparison_stays_within_bounds(values, against):
    found = compare(values, against)
    assert found.p_value is None or 0 <= found.p_value <= 1
    assert found.mean is None or 0 <= found.mean <= 1
    if found.low is not None:
        assert found.low < found.mean < found.high


def test_a_clear_difference_is_significant_and_noise_is_not():
    low, high = [0.1, 0.2, 0.1, 0.2, 0.15], [0.8, 0.9, 0.85, 0.95, 0.9]
    assert compare(high, low).p_value < 0.001
    assert compare(low, low).p_value == pytest.approx(1)


def test_the_interval_contains_the_true_mean_in_95_of_100_samples():
    """Of 2,000 samples of 12 callers each; the count is binomial, with a standard deviation of 10."""
    draws = stats.norm(0.5, 0.1).rvs(size=(2000, 12), random_state=7)
    held = sum(found.low <= 0.5 <= found.high for found in map(compare, draws.tolist()))
    assert 1860 <= held <= 1940
