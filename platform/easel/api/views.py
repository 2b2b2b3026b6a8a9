"""The tenant's REST API: each view parses, calls one verb, and answers."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Callable
from functools import wraps
from typing import Any, NamedTuple
from uuid import UUID

from asgiref.sync import markcoroutinefunction
from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from easel.api import openapi, streaming, waiting
from easel.api.authentication import caller
from easel.api.clock import now
from easel.api.errors import StillRunning
from easel.api.openapi import answers
from easel.api.rate_limit import RequestsPerMinute
from easel.api.rendering import (
    adapter_json,
    admitted_json,
    images_json,
    job_json,
    jobs_json,
    model_json,
    money_json,
    quota_json,
)
from easel.api.serializers import AdapterUploadInput, ImagesInput, JobInput, ListQuery, UsageQuery
from easel.api.streaming import ImageStream, streamed
from easel.api.threads import in_thread
from easel.generation import queries
from easel.generation.admission import Limits, Spec, job_submit
from easel.generation.cancellation import job_cancel
from easel.generation.deletion import job_delete
from easel.generation.models import Job, State
from easel.generation.outputs import outputs_delete
from easel.registry import adapters, routing
from easel.reporting.exports import Span
from easel.reporting.usage import GROUPS, usage
from tenants.configuration import assuming
from tenants.idempotency import Outcome, once
from tenants.models import Scope, Tenant


def submit(request: Request, spec: Spec, endpoint: str) -> tuple[Outcome, Job | None]:
    """Admits a generation, once per Idempotency-Key; the job unless it was admitted before."""
    limits = Limits(
        prompt_chars_max=settings.EASEL.prompt_chars_max,
        job_ttl_seconds=settings.EASEL.job_ttl_seconds,
        queued_jobs_max=settings.EASEL.queued_jobs_max,
    )
    at = now()
    job: Job | None = None

    def make() -> UUID:
        nonlocal job
        job = job_submit(
            api_key=caller(request),
            spec=spec,
            limits=limits,
            job_id=uuid.uuid4(),
            request_id=request._request.request_id,  # type: ignore[attr-defined]
            now=at,
        )
        return job.id

    key = request.headers.get("Idempotency-Key")
    outcome = once(tenant=caller(request).tenant, endpoint=endpoint, key=key, body=request.data, now=at, make=make)
    return outcome, job


def actor_of(request: Request) -> str:
    """Whose act it is, as the audit log says it."""
    return f"key:{caller(request).key_id}"


def as_view_of(function: Any, view: type[APIView]) -> None:
    """Marks a function as the way to a view, where Django and the OpenAPI generator look."""
    function.cls, function.initkwargs, function.csrf_exempt = view, {}, True
    markcoroutinefunction(function)


def replay_headers(outcome: Outcome) -> dict[str, str]:
    return {"Idempotent-Replayed": "true"} if outcome.replayed else {}


class WaitsFor(NamedTuple):
    """What an images call that was admitted waits for."""

    tenant: Tenant
    job_id: UUID
    response_format: str
    stream: bool
    cancel_on_disconnect: bool


class ImagesSubmit(APIView):
    """Admits the work of an images call; `images_generations` waits for it."""

    scope = Scope.GENERATE
    throttle_classes = [RequestsPerMinute]

    @extend_schema(
        operation_id="images_generations",
        request=ImagesInput,
        responses={**answers(openapi.IMAGES), **openapi.events("With `stream`: OpenAI's events.")},
        description="OpenAI's Images API: draws and answers with the images.",
    )
    def post(self, request: Request) -> Response:
        fields = ImagesInput.read(request.data)
        outcome, _ = submit(request, ImagesInput.spec(fields), "images")
        accepted = Response(status=202, headers=replay_headers(outcome))
        accepted.waits_for = WaitsFor(  # type: ignore[attr-defined]
            caller(request).tenant,
            outcome.resource_id,
            fields["response_format"],
            bool(fields["stream"]),
            fields["cancel_on_disconnect"],
        )
        return accepted


class ImagesAnswer(APIView):
    """The second half of an images call, in DRF's terms so that its errors look like all others."""

    authentication_classes: list[Any] = []
    permission_classes: list[Any] = []

    def post(self, request: Request, waits_for: WaitsFor, ended: bool) -> Response:
        if not ended:
            raise StillRunning.of(waits_for.job_id)
        job = queries.job_get(tenant=waits_for.tenant, job_id=waits_for.job_id)
        return Response(images_json(job, response_format=waits_for.response_format))


def by_assumption(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """A view that makes jobs, by `tenants.configuration.assuming`. Failures of ours are no refusals to confirm."""
    once_or_twice = assuming(view, stands=lambda answer: answer.status_code >= 500)

    @wraps(view)
    def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        _ = request.body  # kept by the request from here on
        return once_or_twice(request, *args, **kwargs)

    return wrapper


_submit_images = by_assumption(ImagesSubmit.as_view())
_answer_images = ImagesAnswer.as_view()


async def images_generations(request: HttpRequest) -> HttpResponseBase:
    """A thread admits, none waits, a thread answers. Django cancels this when the client goes away."""
    submission = asyncio.create_task(in_thread(_submit_images, request))
    try:
        return await _images_answer(request, await asyncio.shield(submission))
    except asyncio.CancelledError:
        # Admission itself is not to be stopped: what it makes meanwhile is canceled too.
        if waits_for := getattr(await submission, "waits_for", None):
            await _left(waits_for)
        raise


async def _left(waits_for: WaitsFor) -> None:
    """The client went away: its job stays as it is, unless it asked for something else."""
    if waits_for.cancel_on_disconnect:
        # Without the database the job is drawn, as it would have been without the wish.
        with contextlib.suppress(OperationalError, InterfaceError):
            await in_thread(lambda: job_cancel(Job.objects.get(id=waits_for.job_id), now=now()))


async def _until_left(events: AsyncGenerator[bytes], waits_for: WaitsFor) -> AsyncGenerator[bytes]:
    try:
        async with contextlib.aclosing(events):
            async for event in events:
                yield event
    except (asyncio.CancelledError, GeneratorExit):
        await _left(waits_for)
        raise


async def _images_answer(request: HttpRequest, accepted: HttpResponseBase) -> HttpResponseBase:
    waits_for: WaitsFor | None = getattr(accepted, "waits_for", None)
    if waits_for is None:
        return accepted
    seconds = settings.EASEL.request_wait_seconds
    answer: HttpResponseBase
    if waits_for.stream:
        images = ImageStream(waits_for.tenant, waits_for.job_id, waits_for.response_format)
        answer = streamed(_until_left(images.events(timeout_seconds=seconds), waits_for))
    else:
        ended = await waiting.finished(waits_for.job_id, timeout_seconds=seconds)
        answer = await in_thread(_answer_images, request, waits_for=waits_for, ended=ended)
    if answer.status_code >= 500:
        answer["x-should-retry"] = "false"  # by itself a client library would make, and pay, another job
    if replayed := accepted.headers.get("Idempotent-Replayed"):
        answer["Idempotent-Replayed"] = replayed
    return answer


as_view_of(images_generations, ImagesSubmit)


class Jobs(APIView):
    """The same work without waiting for it."""

    scope = Scope.GENERATE
    throttle_classes = [RequestsPerMinute]

    @extend_schema(operation_id="jobs_create", request=JobInput, responses=answers(openapi.JOB, status=202))
    def post(self, request: Request) -> Response:
        spec = JobInput.spec(JobInput.read(request.data))
        outcome, job = submit(request, spec, "jobs")
        if job is not None and job.state == State.QUEUED:
            shown = admitted_json(job, spec)
        else:
            shown = job_json(queries.job_get(tenant=caller(request).tenant, job_id=outcome.resource_id))
        return Response(shown, status=202, headers=replay_headers(outcome))

    @extend_schema(operation_id="jobs_list", parameters=[ListQuery], responses=answers(openapi.JOBS))
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

    @extend_schema(operation_id="jobs_get", responses=answers(openapi.JOB))
    def get(self, request: Request, job_id: UUID) -> Response:
        return Response(job_json(queries.job_get(tenant=caller(request).tenant, job_id=job_id)))

    @extend_schema(operation_id="jobs_delete", responses=answers(openapi.JOB))
    def delete(self, request: Request, job_id: UUID) -> Response:
        """Deletes the images, prompt, metadata and user of a finished job; what it did and cost stays."""
        job = queries.job_get(tenant=caller(request).tenant, job_id=job_id)
        job_delete(job=job, actor=actor_of(request), now=now())
        return Response(job_json(queries.job_get(tenant=caller(request).tenant, job_id=job_id)))


class JobEvents(APIView):
    """Finds the job that `job_events` follows."""

    scope = Scope.GENERATE

    @extend_schema(operation_id="jobs_events", responses=openapi.events("Events `job.<status>` with the job."))
    def get(self, request: Request, job_id: UUID) -> Response:
        """The job at each change, until it has ended; `Last-Event-ID` leaves out what was seen before."""
        found = Response()
        found.job = queries.job_get(tenant=caller(request).tenant, job_id=job_id)  # type: ignore[attr-defined]
        return found


_find_job = JobEvents.as_view()


async def job_events(request: HttpRequest, job_id: UUID) -> HttpResponseBase:
    """A thread finds the job, none follows it."""
    found = await in_thread(_find_job, request, job_id=job_id)
    job: Job | None = getattr(found, "job", None)
    if job is None:
        return found
    seen, seconds = request.headers.get("Last-Event-ID", ""), settings.EASEL.job_ttl_seconds
    return streamed(streaming.job_events(job.tenant, job.id, seen=seen, timeout_seconds=seconds))


as_view_of(job_events, JobEvents)


class JobCancel(APIView):
    scope = Scope.GENERATE

    @extend_schema(operation_id="jobs_cancel", request=None, responses=answers(openapi.JOB))
    def post(self, request: Request, job_id: UUID) -> Response:
        job = queries.job_get(tenant=caller(request).tenant, job_id=job_id)
        job_cancel(job, now=now())
        return Response(job_json(queries.job_get(tenant=caller(request).tenant, job_id=job_id)))


class JobImages(APIView):
    scope = Scope.GENERATE

    @extend_schema(operation_id="jobs_images_delete", responses=answers(openapi.JOB))
    def delete(self, request: Request, job_id: UUID) -> Response:
        """Deletes the images, and ends the charge for storing them."""
        job = queries.job_get(tenant=caller(request).tenant, job_id=job_id)
        outputs_delete(job=job, actor=actor_of(request), now=now())
        return Response(job_json(queries.job_get(tenant=caller(request).tenant, job_id=job_id)))


class Adapters(APIView):
    scope = Scope.ADAPTERS
    parser_classes = [MultiPartParser]

    @extend_schema(
        operation_id="adapters_upload",
        request={"multipart/form-data": AdapterUploadInput},
        responses=answers(openapi.ADAPTER, status=201),
    )
    def post(self, request: Request) -> Response:
        form: Any = request.data  # the parser's QueryDict
        fields = AdapterUploadInput(data=form.dict())
        fields.is_valid(raise_exception=True)
        given = fields.validated_data
        version = adapters.adapter_add_version(
            project=caller(request).project,
            name=given["name"],
            data=given["file"].read(),
            model_name=given.get("model"),
            bytes_max=settings.EASEL.adapter_bytes_max,
            rank_max=settings.EASEL.adapter_rank_max,
            now=now(),
        )
        adapter = adapters.adapter_get(tenant=caller(request).tenant, name=version.adapter.name)
        return Response(adapter_json(adapter), status=201)

    @extend_schema(operation_id="adapters_list", responses=answers(openapi.ADAPTERS))
    def get(self, request: Request) -> Response:
        rows = caller(request).tenant.adapters.select_related("model").prefetch_related("versions").order_by("name")
        return Response({"object": "list", "data": [adapter_json(adapter) for adapter in rows]})


class AdapterDetail(APIView):
    scope = Scope.ADAPTERS

    @extend_schema(operation_id="adapters_get", responses=answers(openapi.ADAPTER))
    def get(self, request: Request, name: str) -> Response:
        return Response(adapter_json(adapters.adapter_get(tenant=caller(request).tenant, name=name)))

    @extend_schema(operation_id="adapters_retire", responses=answers(openapi.ADAPTER))
    def delete(self, request: Request, name: str) -> Response:
        return Response(adapter_json(adapters.adapter_retire(tenant=caller(request).tenant, name=name, now=now())))


class Models(APIView):
    @extend_schema(operation_id="models_list", responses=answers(openapi.MODELS))
    def get(self, request: Request) -> Response:
        return Response({"object": "list", "data": [model_json(version) for version in routing.live_models()]})


class ModelDetail(APIView):
    @extend_schema(operation_id="models_get", responses=answers(openapi.MODEL))
    def get(self, request: Request, name: str) -> Response:
        return Response(model_json(routing.main_version(name)))


class QuotaView(APIView):
    @extend_schema(operation_id="quota_get", responses=answers(openapi.QUOTA))
    def get(self, request: Request) -> Response:
        """What your account and this key may ask for, and how much of it is used."""
        return Response(quota_json(caller(request), at=now()))


class Usage(APIView):
    scope = Scope.USAGE

    @extend_schema(operation_id="usage_get", parameters=[UsageQuery], responses=answers(openapi.USAGE))
    def get(self, request: Request) -> Response:
        query = UsageQuery(data=request.query_params.dict())
        query.is_valid(raise_exception=True)
        groups = list(dict.fromkeys(query.validated_data["group_by"].split(",")))
        if unknown := [name for name in groups if name not in GROUPS]:
            raise ValidationError({"group_by": f"doesn't know {unknown[0]!r}; known are {', '.join(GROUPS)}"})
        end = query.validated_data.get("end", now().date())
        start = query.validated_data.get("start", end.replace(day=1))
        if end < start:
            raise ValidationError({"end": f"is before start, {start}"})
        tenant = caller(request).tenant
        rows = usage(Span(tenant=tenant.slug, start=start, end=end), group_by=groups)
        return Response(
            {
                "object": "usage",
                "start": start,
                "end": end,
                "data": [
                    {
                        **row.group,
                        "requests": row.requests,
                        "image_units": float(row.image_units),
                        "gpu_seconds": float(row.gpu_seconds),
                        "storage_gb_seconds": float(row.storage_gb_seconds),
                        "cost": money_json(row.cost_micros, tenant.currency),
                    }
                    for row in rows
                ],
                "total": money_json(sum(row.cost_micros for row in rows), tenant.currency),
            }
        )
