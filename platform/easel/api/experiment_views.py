"""The tenant's side of versions: its experiments, feedback on its jobs, and the rollouts that touch its requests."""

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from drf_spectacular.utils import extend_schema

from core import clock
from easel.api import schemas
from easel.api.openapi import answers
from easel.api.rendering import experiment_json, report_json, rollout_json
from easel.api.resource import Resource, answer_json, body_of, caller
from easel.api.serializers import ExperimentInput, FeedbackInput, RolloutsQuery
from easel.jobs import queries
from easel.jobs.feedback import feedback_give
from easel.serving.experiment_report import experiment_report
from easel.serving.experiments import experiment_get, experiment_start, experiment_stop
from easel.serving.rollouts import rollouts_page
from tenants.models import Scope


class JobFeedback(Resource):
    scope = Scope.GENERATE

    @extend_schema(operation_id="jobs_feedback", request=FeedbackInput, responses=answers(schemas.FEEDBACK, status=201))
    def post(self, request: HttpRequest, job_id: UUID) -> HttpResponse:
        """What your user thought of a job's images; given once."""
        fields = FeedbackInput(data=body_of(request))
        fields.is_valid(raise_exception=True)
        job = queries.job_get(tenant=caller(request).tenant, job_id=job_id)
        given = feedback_give(job=job, now=clock.now(), **fields.validated_data)
        return answer_json(
            {
                "object": "feedback",
                "job_id": str(job.id),
                "score": given.score,
                "comment": given.comment,
                "created_at": given.created_at,
            },
            status=201,
        )


class Experiments(Resource):
    scope = Scope.GENERATE

    @extend_schema(
        operation_id="experiments_start", request=ExperimentInput, responses=answers(schemas.EXPERIMENT, status=201)
    )
    def post(self, request: HttpRequest) -> HttpResponse:
        """Shares your requests to a model out between the arms, from now on."""
        fields = ExperimentInput(data=body_of(request))
        fields.is_valid(raise_exception=True)
        experiment = experiment_start(
            tenant=caller(request).tenant,
            name=fields.validated_data["name"],
            model_name=fields.validated_data.get("model"),
            arms=fields.arm_plans(),
            now=clock.now(),
        )
        found = experiment_get(tenant=caller(request).tenant, name=experiment.name)
        return answer_json(experiment_json(found), status=201)

    @extend_schema(operation_id="experiments_list", responses=answers(schemas.EXPERIMENTS))
    def get(self, request: HttpRequest) -> HttpResponse:
        rows = caller(request).tenant.experiments.select_related("model").prefetch_related("arms__version")
        return answer_json({"object": "list", "data": [experiment_json(row) for row in rows.order_by("-started_at")]})


class ExperimentDetail(Resource):
    scope = Scope.GENERATE

    @extend_schema(operation_id="experiments_get", responses=answers(schemas.EXPERIMENT_REPORT))
    def get(self, request: HttpRequest, name: str) -> HttpResponse:
        """With its report: what each arm did, and which differences are more than chance."""
        experiment = experiment_get(tenant=caller(request).tenant, name=name)
        return answer_json(report_json(experiment, experiment_report(experiment)))


class ExperimentStop(Resource):
    scope = Scope.GENERATE

    @extend_schema(operation_id="experiments_stop", request=None, responses=answers(schemas.EXPERIMENT))
    def post(self, request: HttpRequest, name: str) -> HttpResponse:
        return answer_json(experiment_json(experiment_stop(tenant=caller(request).tenant, name=name, now=clock.now())))


class Rollouts(Resource):
    @extend_schema(operation_id="rollouts_list", parameters=[RolloutsQuery], responses=answers(schemas.ROLLOUTS))
    def get(self, request: HttpRequest) -> HttpResponse:
        """Canaries, the latest first: another version may be drawing a share of your requests."""
        query = RolloutsQuery(data=request.GET.dict())
        query.is_valid(raise_exception=True)
        found, more = rollouts_page(model_name=query.validated_data.get("model"), **query.page())
        return answer_json({"object": "list", "data": [rollout_json(one) for one in found], "has_more": more})
