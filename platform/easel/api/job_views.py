"""Jobs: the same work without waiting for it, and what became of it."""

from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from core import clock
from core.threads import as_view_of, in_thread
from easel.api import openapi, schemas, streaming
from easel.api.authentication import caller
from easel.api.openapi import answers
from easel.api.rate_limit import RequestsPerMinute
from easel.api.rendering import admitted_json, job_json, jobs_json
from easel.api.serializers import JobInput, ListQuery
from easel.api.streaming import streamed
from easel.api.submission import replay_headers, submit
from easel.jobs import lifecycle, queries
from easel.jobs.deletion import job_delete
from easel.jobs.models import State
from easel.jobs.outputs import outputs_delete
from tenants.models import ApiKey, Scope


def actor_of(request: Request) -> str:
    """Whose act it is, as the audit log says it."""
    return f"key:{caller(request).key_id}"


class Jobs(APIView):
    """The same work without waiting for it."""

    scope = Scope.GENERATE
    throttle_classes = [RequestsPerMinute]

    @extend_schema(operation_id="jobs_create", request=JobInput, responses=answers(schemas.JOB, status=202))
    def post(self, request: Request) -> Response:
        spec = JobInput.spec(JobInput.read(request.data))
        outcome, job = submit(request, spec, "jobs")
        if job is not None and job.state == State.QUEUED:
            shown = admitted_json(job, spec)
        else:
            shown = job_json(queries.job_get(tenant=caller(request).tenant, job_id=outcome.resource_id))
        return Response(shown, status=202, headers=replay_headers(outcome))

    @extend_schema(operation_id="jobs_list", parameters=[ListQuery], responses=answers(schemas.JOBS))
    def get(self, request: Request) -> Response:
        query = ListQuery(data=request.query_params.dict())
        query.is_valid(raise_exception=True)
        fields = query.validated_data
        if fields.get("status", State.QUEUED) not in State.values:
            raise ValidationError({"status": f"is one of {', '.join(State.values)}"})
        jobs, more = queries.jobs_page(
            tenant=caller(request).tenant, limit=fields["limit"], after=fields.get("after"), state=fields.get("status")
        )
        return Response({"object": "list", "data": jobs_json(jobs), "has_more": more})


class JobDetail(APIView):
    scope = Scope.GENERATE

    @extend_schema(operation_id="jobs_get", responses=answers(schemas.JOB))
    def get(self, request: Request, job_id: UUID) -> Response:
        return Response(job_json(queries.job_get(tenant=caller(request).tenant, job_id=job_id)))

    @extend_schema(operation_id="jobs_delete", responses=answers(schemas.JOB))
    def delete(self, request: Request, job_id: UUID) -> Response:
        """Deletes the images, prompt, metadata and user of a finished job; what it did and cost stays."""
        job = queries.job_get(tenant=caller(request).tenant, job_id=job_id)
        job_delete(job=job, actor=actor_of(request), now=clock.now())
        return Response(job_json(queries.job_get(tenant=caller(request).tenant, job_id=job_id)))


class JobEvents(APIView):
    """Finds the job that `job_events` follows."""

    scope = Scope.GENERATE

    @extend_schema(operation_id="jobs_events", responses=openapi.events("Events `job.<status>` with the job."))
    def get(self, request: Request, job_id: UUID) -> Response:
        """The job at each change, until it has ended; `Last-Event-ID` leaves out what was seen before."""
        found = Response()
        queries.job_get(tenant=caller(request).tenant, job_id=job_id)
        found.key = caller(request)  # type: ignore[attr-defined]
        return found


_find_job = JobEvents.as_view()


async def job_events(request: HttpRequest, job_id: UUID) -> HttpResponseBase:
    """A thread finds the job, none follows it."""
    found = await in_thread(_find_job, request, job_id=job_id)
    key: ApiKey | None = getattr(found, "key", None)
    if key is None:
        return found
    seen, seconds = request.headers.get("Last-Event-ID", ""), settings.EASEL.job_ttl_seconds
    return streamed(streaming.job_events(key, job_id, seen=seen, timeout_seconds=seconds))


as_view_of(job_events, JobEvents)


class JobCancel(APIView):
    scope = Scope.GENERATE

    @extend_schema(operation_id="jobs_cancel", request=None, responses=answers(schemas.JOB))
    def post(self, request: Request, job_id: UUID) -> Response:
        job = queries.job_get(tenant=caller(request).tenant, job_id=job_id)
        lifecycle.cancel(job=job, now=clock.now())
        return Response(job_json(queries.job_get(tenant=caller(request).tenant, job_id=job_id)))


class JobImages(APIView):
    scope = Scope.GENERATE

    @extend_schema(operation_id="jobs_images_delete", responses=answers(schemas.JOB))
    def delete(self, request: Request, job_id: UUID) -> Response:
        """Deletes the images, and ends the charge for storing them."""
        job = queries.job_get(tenant=caller(request).tenant, job_id=job_id)
        outputs_delete(job=job, actor=actor_of(request), now=clock.now())
        return Response(job_json(queries.job_get(tenant=caller(request).tenant, job_id=job_id)))
