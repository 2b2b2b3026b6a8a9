"""Experiments of a tenant with their reports, and the rollouts that touch its requests."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from django.http import HttpRequest, HttpResponse
from pydantic import Field
from typing_extensions import TypedDict

from billing.money import Money, money_json
from core import clock
from easel.api.declaration import LEFT_OUT, Input, LongPageQuery, OneOf, PageQuery, Text, operation
from easel.api.endpoint import endpoint
from easel.api.generation_input import AdapterInput
from easel.api.resource import Resource, answer_json, body_of, caller
from easel.api.rows import Listed, listed, row_json
from easel.catalog.errors import AdapterBaseWrong, AdapterNotFound, AdapterRetired, ModelNotFound, VersionNotFound
from easel.jobs.errors import StepsInvalid
from easel.serving.aliases import model_name_of
from easel.serving.errors import (
    ExperimentExists,
    ExperimentInvalid,
    ExperimentNotFound,
    RolloutNotFound,
    WeightsInvalid,
)
from easel.serving.experiment_report import ArmReport, experiment_report
from easel.serving.experiments import ArmPlan, experiment_get, experiment_start, experiment_stop, experiments_page
from easel.serving.models import Experiment, Rollout
from easel.serving.rollouts import rollouts_page
from tenants.models import Scope

_COMPARED = ("score", "error_rate", "seconds", "job_cost_micros")  # between the arms of an experiment

START_ERRORS = (
    ExperimentInvalid,
    ExperimentExists,
    WeightsInvalid,
    ModelNotFound,
    VersionNotFound,
    AdapterNotFound,
    AdapterRetired,
    AdapterBaseWrong,
    StepsInvalid,
)


class ArmInput(Input):
    name: Text = Field(max_length=40)
    weight: int = Field(description="Percent of the callers; the weights of all arms sum to 100.")
    version: int = Field(default=LEFT_OUT, ge=1, description="A version of the model; by default as the model routes.")
    adapters: list[AdapterInput] = Field(default=LEFT_OUT, max_length=4)
    steps: int = LEFT_OUT

    def plan(self) -> ArmPlan:
        adapters = tuple((one.name, one.scale) for one in self.adapters or ())
        return ArmPlan(name=self.name, weight=self.weight, version=self.version, adapters=adapters, steps=self.steps)


class ExperimentInput(Input):
    name: Text = Field(max_length=40)
    model: Text = Field(default=LEFT_OUT, max_length=100)
    arms: list[ArmInput]


class RolloutsQuery(PageQuery):
    model: Text = Field(default=LEFT_OUT, max_length=100)


class ArmAdapter(TypedDict):
    name: str
    scale: float


class ArmAnswer(TypedDict):
    name: str
    weight: int
    version: int | None
    adapters: list[ArmAdapter]
    steps: int | None


class ExperimentAnswer(TypedDict):
    id: str
    object: str
    name: str
    model: str
    status: Annotated[str, OneOf(Experiment.State.values)]
    started_at: datetime
    stopped_at: datetime | None
    arms: list[ArmAnswer]


class ComparisonAnswer(TypedDict):
    """A mean with its interval, and its difference from the first arm with the `p_value` of that."""

    callers: int
    mean: float | None
    low: float | None
    high: float | None
    difference: float | None
    p_value: float | None


class ArmReportAnswer(TypedDict):
    arm: str
    jobs: int
    succeeded: int
    failed: int
    feedback: int
    cost: Money
    seconds_p50: float | None
    seconds_p95: float | None
    score: ComparisonAnswer
    error_rate: ComparisonAnswer
    seconds: ComparisonAnswer
    job_cost_micros: ComparisonAnswer


class ExperimentReportAnswer(ExperimentAnswer):
    report: list[ArmReportAnswer]


class RolloutAnswer(TypedDict):
    id: str
    object: str
    model: str
    stable_version: int
    candidate_version: int
    status: Annotated[str, OneOf(Rollout.State.values)]
    stages: list[int]
    candidate_percent: int
    verdict: str
    started_at: datetime
    ended_at: datetime | None


class Experiments(Resource):
    scope = Scope.GENERATE

    @operation("experiments_start", ExperimentAnswer, request=ExperimentInput, status=201, errors=START_ERRORS)
    def post(self, request: HttpRequest) -> HttpResponse:
        """Split your requests to a model between the arms, from now on."""
        fields = ExperimentInput.read(body_of(request))
        tenant, arms = caller(request).tenant, [arm.plan() for arm in fields.arms]
        experiment_start(tenant=tenant, name=fields.name, model_name=fields.model, arms=arms, now=clock.now())
        return answer_json(experiment_json(experiment_get(tenant=tenant, name=fields.name)), status=201)

    @operation("experiments_list", Listed[ExperimentAnswer], query=LongPageQuery, errors=(ExperimentNotFound,))
    def get(self, request: HttpRequest) -> HttpResponse:
        """List your experiments, the latest first."""
        query = LongPageQuery.read(request.GET.dict())
        found, more = experiments_page(tenant=caller(request).tenant, **query.page())
        return answer_json(listed([experiment_json(row) for row in found], has_more=more))


@endpoint("get", "experiments_get", ExperimentReportAnswer, errors=(ExperimentNotFound,), scope=Scope.GENERATE)
def experiment_detail(request: HttpRequest, name: str) -> HttpResponse:
    """Report what each arm did, and which differences are more than chance."""
    experiment = experiment_get(tenant=caller(request).tenant, name=name)
    return answer_json(report_json(experiment, experiment_report(experiment)))


class ExperimentStop(Resource):
    scope = Scope.GENERATE

    @operation("experiments_stop", ExperimentAnswer, errors=(ExperimentNotFound,))
    def post(self, request: HttpRequest, name: str) -> HttpResponse:
        """Stop an experiment. Its report stays."""
        return answer_json(experiment_json(experiment_stop(tenant=caller(request).tenant, name=name, now=clock.now())))


@endpoint("get", "rollouts_list", Listed[RolloutAnswer], query=RolloutsQuery, errors=(RolloutNotFound, ModelNotFound))
def rollouts(request: HttpRequest) -> HttpResponse:
    """List canaries, the latest first: another version may be serving a share of your requests."""
    query = RolloutsQuery.read(request.GET.dict())
    model_name = query.model and model_name_of(query.model, tenant=caller(request).tenant)
    found, more = rollouts_page(model_name=model_name, **query.page())
    return answer_json(listed([rollout_json(one) for one in found], has_more=more))


def rollout_json(rollout: Rollout) -> RolloutAnswer:
    running = rollout.state == Rollout.State.RUNNING
    return row_json(
        RolloutAnswer,
        rollout,
        object="rollout",
        model=rollout.model.name,
        stable_version=rollout.stable.number,
        candidate_version=rollout.candidate.number,
        status=rollout.state,
        candidate_percent=rollout.stages[rollout.stage] if running else 100 * (rollout.state == "promoted"),
    )


def experiment_json(experiment: Experiment) -> ExperimentAnswer:
    return row_json(
        ExperimentAnswer,
        experiment,
        object="experiment",
        model=experiment.model.name,
        status=experiment.state,
        arms=[
            row_json(ArmAnswer, arm, version=arm.version.number if arm.version else None)
            for arm in experiment.arms.all()
        ],
    )


def report_json(experiment: Experiment, reports: Sequence[ArmReport]) -> ExperimentReportAnswer:
    currency = experiment.tenant.currency
    rows = [
        row_json(
            ArmReportAnswer,
            report,
            arm=report.arm.name,
            cost=money_json(report.cost_micros, currency),
            **{name: row_json(ComparisonAnswer, getattr(report, name)) for name in _COMPARED},
        )
        for report in reports
    ]
    return {**experiment_json(experiment), "report": rows}
