"""Jobs: the same work without waiting for it, and what became of it."""

from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import ValidationError

from core import clock
from easel.api import openapi, schemas, streaming
from easel.api.openapi import answers
from easel.api.rate_limit import take
from easel.api.rendering import admitted_json, job_json, jobs_json
from easel.api.resource import Resource, answer_json, body_of, caller, described_by, serve
from easel.api.serializers import JobInput, ListQuery
from easel.api.streaming import streamed
from easel.api.submission import replay_headers, submit
from easel.jobs import queries
from easel.jobs.cancellation import job_cancel
from easel.jobs.deletion import job_delete
from easel.jobs.models import State
from easel.jobs.outputs import outputs_delete
from tenants.models import ApiKey, Scope


def actor_of(request: HttpRequest) -> str:
    """Whose act it is, as the audit log says it."""
    return f"key:{caller(request).key_id}"


class Jobs(Resource):
    """The same work without waiting for it."""

    scope = Scope.GENERATE

    @extend_schema(operation_id="jobs_create", request=JobInput, responses=answers(schemas.JOB, status=202))
    def post(self, request: HttpRequest) -> HttpResponse:
        take(request, caller(request), now=clock.now())
        body = body_of(request)
        spec = JobInput.spec(JobInput.read(body))
        outcome, job = submit(request, spec, body, "jobs")
        if job is not None and job.state == State.QUEUED:
            shown = admitted_json(job, spec)
        else:
            shown = job_json(queries.job_get(tenant=caller(request).tenant, job_id=outcome.resource_id))
        return answer_json(shown, status=202, headers=replay_headers(outcome))

    @extend_schema(operation_id="jobs_list", parameters=[ListQuery], responses=answers(schemas.JOBS))
    def get(self, request: HttpRequest) -> HttpResponse:
        query = ListQuery(data=request.GET.dict())
        query.is_valid(raise_exception=True)
        fields = query.validated_data
        if fields.get("status", State.QUEUED) not in State.values:
            raise ValidationError({"status": f"is one of {', '.join(State.values)}"})
        jobs, more = queries.jobs_page(
            tenant=caller(request).tenant, limit=fields["limit"], after=fields.get("after"), state=fields.get("status")
        )
        return answer_json({"object": "list", "data": jobs_json(jobs), "has_more": more})


class JobDetail(Resource):
    scope = Scope.GENERATE

    @extend_schema(operation_id="jobs_get", responses=answers(schemas.JOB))
    def get(self, request: HttpRequest, job_id: UUID) -> HttpResponse:
        return answer_json(job_json(queries.job_get(tenant=caller(request).tenant, job_id=job_id)))

    @extend_schema(operation_id="jobs_delete", responses=answers(schemas.JOB))
    def delete(self, request: HttpRequest, job_id: UUID) -> HttpResponse:
        """Deletes the images, prompt, metadata and user of a finished job; what it did and cost stays."""
        job = queries.job_get(tenant=caller(request).tenant, job_id=job_id)
        job_delete(job=job, actor=actor_of(request), now=clock.now())
        return answer_json(job_json(queries.job_get(tenant=caller(request).tenant, job_id=job_id)))


class JobEvents(Resource):
    """Finds the job that `job_events` follows."""

    scope = Scope.GENERATE

    @extend_schema(operation_id="jobs_events", responses=openapi.events("Events `job.<status>` with the job."))
    def get(self, request: HttpRequest, job_id: UUID) -> HttpResponse:
        """The job at each change, until it has ended; `Last-Event-ID` leaves out what was seen before."""
        queries.job_get(tenant=caller(request).tenant, job_id=job_id)
        found = HttpResponse()
        found.key = caller(request)  # type: ignore[attr-defined]
        return found


_find_job = serve(JobEvents)


async def job_events(request: HttpRequest, job_id: UUID) -> HttpResponseBase:
    """A thread finds the job, none follows it."""
    found = await _find_job(request, job_id=job_id)
    key: ApiKey | None = getattr(found, "key", None)
    if key is None:
        return found
    seen, seconds = request.headers.get("Last-Event-ID", ""), settings.EASEL.job_ttl_seconds
    return streamed(streaming.job_events(key, job_id, seen=seen, timeout_seconds=seconds))


described_by(JobEvents, job_events)


class JobCancel(Resource):
    scope = Scope.GENERATE

    @extend_schema(operation_id="jobs_cancel", request=None, responses=answers(schemas.JOB))
    def post(self, request: HttpRequest, job_id: UUID) -> HttpResponse:
        job = queries.job_get(tenant=caller(request).tenant, job_id=job_id)
        job_cancel(job, now=clock.now())
        return answer_json(job_json(queries.job_get(tenant=caller(request).tenant, job_id=job_id)))


class JobImages(Resource):
    scope = Scope.GENERATE

    @extend_schema(operation_id="jobs_images_delete", responses=answers(schemas.JOB))
    def delete(self, request: HttpRequest, job_id: UUID) -> HttpResponse:
        """Deletes the images, and ends the charge for storing them."""
        job = queries.job_get(tenant=caller(request).tenant, job_id=job_id)
        outputs_delete(job=job, actor=actor_of(request), now=clock.now())
        return answer_json(job_json(queries.job_get(tenant=caller(request).tenant, job_id=job_id)))
