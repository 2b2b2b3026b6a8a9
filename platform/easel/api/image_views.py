"""OpenAI's Images API: the call that waits for its images, or streams them."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponseBase
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from core import clock
from core.threads import as_view_of, in_thread
from easel.api import openapi, schemas, waiting
from easel.api.authentication import caller
from easel.api.errors import StillRunning
from easel.api.openapi import answers
from easel.api.rate_limit import RequestsPerMinute
from easel.api.rendering import images_json
from easel.api.serializers import ImagesInput
from easel.api.streaming import ImageStream, streamed
from easel.api.submission import replay_headers, submit, submitting
from easel.jobs import lifecycle, queries
from easel.jobs.models import Job
from tenants.models import Scope, Tenant


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
        responses={**answers(schemas.IMAGES), **openapi.events("With `stream`: OpenAI's events.")},
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


_submit_images = submitting(ImagesSubmit.as_view())
_answer_images = ImagesAnswer.as_view()


async def images_generations(request: HttpRequest) -> HttpResponseBase:
    """A thread admits, none waits, a thread answers. Django cancels this when the client goes away."""
    submission = asyncio.create_task(_submit_images(request))
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
            await in_thread(lambda: lifecycle.cancel(job=Job.objects.get(id=waits_for.job_id), now=clock.now()))


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
