"""OpenAI's Images API: the call that waits for its images, or streams them."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from drf_spectacular.utils import extend_schema

from core import clock
from core.threads import in_thread
from easel.api import errors, openapi, schemas, waiting
from easel.api.openapi import answers
from easel.api.rate_limit import take
from easel.api.rendering import images_json
from easel.api.resource import Resource, answer_json, body_of, caller, described_by, serve
from easel.api.serializers import ImagesInput
from easel.api.streaming import ImageStream, streamed
from easel.api.submission import replay_headers, submit
from easel.jobs import queries
from easel.jobs.cancellation import job_cancel
from easel.jobs.models import Job
from tenants.models import Scope, Tenant


class WaitsFor(NamedTuple):
    """What an images call that was admitted waits for."""

    tenant: Tenant
    job_id: UUID
    response_format: str
    stream: bool
    cancel_on_disconnect: bool


class ImagesSubmit(Resource):
    """Admits the work of an images call; `images_generations` waits for it."""

    scope = Scope.GENERATE

    @extend_schema(
        operation_id="images_generations",
        request=ImagesInput,
        responses={**answers(schemas.IMAGES), **openapi.events("With `stream`: OpenAI's events.")},
        description="OpenAI's Images API: draws and answers with the images.",
    )
    def post(self, request: HttpRequest) -> HttpResponse:
        take(request, caller(request), now=clock.now())
        body = body_of(request)
        fields = ImagesInput.read(body)
        outcome, _ = submit(request, ImagesInput.spec(fields), body, "images")
        accepted = HttpResponse(status=202, headers=replay_headers(outcome))
        accepted.waits_for = WaitsFor(  # type: ignore[attr-defined]
            caller(request).tenant,
            outcome.resource_id,
            fields["response_format"],
            bool(fields["stream"]),
            fields["cancel_on_disconnect"],
        )
        return accepted


def _answer_images(waits_for: WaitsFor, ended: bool) -> HttpResponseBase:
    """The second half of an images call: the images of the job that it waited for, or a refusal."""
    try:
        if not ended:
            raise errors.StillRunning.of(waits_for.job_id)
        job = queries.job_get(tenant=waits_for.tenant, job_id=waits_for.job_id)
        return answer_json(images_json(job, response_format=waits_for.response_format))
    except Exception as error:
        refusal = errors.handle(error)
        if refusal is None:
            raise
        return refusal


_submit_images = serve(ImagesSubmit, submits=True)


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
            await in_thread(lambda: job_cancel(Job.objects.get(id=waits_for.job_id), now=clock.now()))


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
        answer = await in_thread(_answer_images, waits_for, ended)
    if answer.status_code >= 500:
        answer["x-should-retry"] = "false"  # by itself a client library would make, and pay, another job
    if replayed := accepted.headers.get("Idempotent-Replayed"):
        answer["Idempotent-Replayed"] = replayed
    return answer


described_by(ImagesSubmit, images_generations)
