import uuid
from datetime import timedelta
from urllib.parse import urlencode

import pytest

from easel.serving.models import Experiment
from easel.serving.rollouts import rollout_roll_back, rollout_start
from tests.conftest import NOW
from tests.easel.api.conftest import call, end_job

ARM = {"name": "a", "weight": 50}


@pytest.fixture
def start(version):
    def make(customer, **fields):
        arms = [{"name": "plain", "weight": 50}, {"name": "short", "weight": 50, "steps": 2}]
        body = {"name": "steps", "model": version.model.name, "arms": arms, **fields}
        return call("POST", "/v1/experiments", customer, json=body)

    return make


def test_an_experiment_assigns_jobs_and_reports_on_its_arms(alice, start, create):
    assert start(alice).status_code == 201
    job = create(alice, user="ann")
    assert job["experiment"] == {"name": "steps", "arm": "short" if job["steps"] == 2 else "plain"}
    end_job(job["id"])
    given = call("POST", f"/v1/jobs/{job['id']}/feedback", alice, json={"score": 1})
    assert (given.status_code, given.json()["score"]) == (201, 1.0)
    report = call("GET", "/v1/experiments/steps", alice).json()["report"]
    [busy] = [arm for arm in report if arm["jobs"]]
    assert (busy["arm"], busy["succeeded"], busy["feedback"]) == (job["experiment"]["arm"], 1, 1)
    assert busy["score"]["mean"] == 1.0
    assert busy["cost"]["amount_micros"] > 0


def test_an_experiment_is_listed_and_stopped(alice, start):
    start(alice)
    assert call("POST", "/v1/experiments/steps/stop", alice).json()["status"] == "stopped"
    assert [row["status"] for row in call("GET", "/v1/experiments", alice).json()["data"]] == ["stopped"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"arms": [{"name": "a", "weight": 60}, {"name": "b", "weight": 60}]}, "weights_invalid"),
        ({"arms": [{"name": "a", "weight": 150}, {"name": "b", "weight": -50}]}, "weights_invalid"),
        ({"arms": [{"name": "a", "weight": 50.0}, {"name": "b", "weight": 50}]}, "invalid_value"),
        ({"arms": []}, "experiment_invalid"),
        ({"arms": "all"}, "invalid_value"),
        ({"name": "Ünïcode"}, "experiment_invalid"),
        ({"model": "no-such"}, "model_not_found"),
        ({"traffic": 1}, "unknown_field"),
        (
            {"arms": [{"name": "a", "weight": 50}, {"name": "b", "weight": 50, "adapters": [{"name": "x"}]}]},
            "adapter_not_found",
        ),
    ],
)
def test_what_can_not_be_an_experiment_is_refused_with_a_code(alice, start, fields, code):
    answer = start(alice, **fields)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["code"] == code
    assert not Experiment.objects.filter(tenant=alice.tenant).exists()


def test_a_second_experiment_of_the_same_name_is_refused(alice, start):
    start(alice)
    answer = start(alice)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "experiment_exists")


@pytest.mark.parametrize("score", [-0.1, 1.1, "1", None, True])
def test_a_score_is_a_number_from_0_to_1(alice, create, score):
    job = create(alice)
    answer = call("POST", f"/v1/jobs/{job['id']}/feedback", alice, json={"score": score})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "score")


def test_feedback_twice_is_refused_and_the_first_stays(alice, create):
    job = create(alice)
    end_job(job["id"])
    call("POST", f"/v1/jobs/{job['id']}/feedback", alice, json={"score": 1})
    answer = call("POST", f"/v1/jobs/{job['id']}/feedback", alice, json={"score": 0})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "feedback_exists")


def test_another_tenants_job_and_experiment_are_not_there(alice, bob, start, create):
    start(alice)
    job = create(alice)
    end_job(job["id"])
    assert call("POST", f"/v1/jobs/{job['id']}/feedback", bob, json={"score": 1}).status_code == 404
    assert call("GET", "/v1/experiments/steps", bob).status_code == 404
    assert call("POST", "/v1/experiments/steps/stop", bob).status_code == 404


def rollouts(customer, **query):
    return call("GET", f"/v1/rollouts?{urlencode(query)}", customer)


def test_a_rollout_is_seen_by_those_whose_requests_it_touches(alice, second, plan):
    rollout_start(candidate=second, plan=plan, now=NOW)
    [found] = rollouts(alice, model=second.model.name).json()["data"]
    assert (found["status"], found["candidate_version"], found["candidate_percent"]) == ("running", 2, 20)


def test_rollouts_come_in_pages_the_newest_first(alice, second, plan):
    for hours in range(3):
        rollout = rollout_start(candidate=second, plan=plan, now=NOW + timedelta(hours=hours))
        rollout_roll_back(rollout, verdict="a test", now=NOW + timedelta(hours=hours, minutes=1))
    first = rollouts(alice, model=second.model.name, limit=2).json()
    rest = rollouts(alice, model=second.model.name, limit=2, after=first["data"][-1]["id"]).json()
    assert (len(first["data"]), first["has_more"], len(rest["data"]), rest["has_more"]) == (2, True, 1, False)
    started = [row["started_at"] for row in first["data"] + rest["data"]]
    assert started == sorted(started, reverse=True)


def test_a_page_after_no_rollout_is_refused(alice):
    answer = rollouts(alice, after=uuid.uuid4())
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "rollout_not_found")
