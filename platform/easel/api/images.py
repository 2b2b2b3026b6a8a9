"""OpenAI's Images API: the call that waits for its images or streams them."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, NamedTuple, NotRequired, Self
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from pydantic import Field, ValidationInfo, model_validator
from typing_extensions import TypedDict

from billing.money import from_micros, plain
from billing.usage.queries import job_costs
from core import clock
from core.errors import DomainError, declared_errors
from core.threads import in_thread
from easel.api import errors, streaming, waiting
from easel.api.access import Access, BrokenOff, access_of
from easel.api.azure import with_deployment
from easel.api.declaration import LEFT_OUT, ErrorEvent, Flag, OneOf, operation
from easel.api.errors import StillRunning
from easel.api.generation_input import JobInput, refuse
from easel.api.leniency import Leniency
from easel.api.rate_limit import take
from easel.api.resource import Resource, answer_json, body_of, caller, described_by, links_of, serve
from easel.api.submission import (
    REPLAYED,
    SUBMIT_ERRORS,
    ClientDisconnected,
    has_key,
    is_disconnected,
    is_repeatable,
    retry_count_of,
    submit_waiting,
)
from easel.catalog.models import PoolTier
from easel.jobs import queries
from easel.jobs.errors import ImagesDeleted, JobFailed
from easel.jobs.models import Attempt, Job, State
from easel.jobs.outputs import ImageLinks
from easel.jobs.retries import job_abandon
from easel.jobs.spec import FieldWarning
from easel.jobs.storage_keys import preview_key
from easel.jobs.stored_images import image_bytes_max
from easel.jobs.usage_json import JobUsage, usage_json
from easel.serving.tiers import Quality
from easel.storage import store
from tenants.models import Scope, Tenant


class ImagesInput(JobInput):
    """`POST /v1/images/generations` of OpenAI, as of the gpt-image models."""

    response_format: Annotated[str, OneOf(("b64_json", "url", "both"))] = Field(
        default="b64_json", description="both: each image has `b64_json` and `url`."
    )
    stream: Flag = False
    cancel_on_disconnect: Flag = Field(
        default=LEFT_OUT,
        description="What happens to the job when you disconnect before it has ended. True: it is canceled. False: it"
        " goes on. Left out: a queued job is canceled; one that is dispatched or running goes on for a minute, in which"
        " a retry can join it.",
    )
    partial_images: int = Field(
        default=0, ge=0, le=3, description="With `stream`: previews of each image while it is generated."
    )

    @model_validator(mode="after")
    def _previews_are_streamed(self, info: ValidationInfo) -> Self:
        if self.partial_images and not self.stream:
            refuse("partial_images", "previews need `stream: true`", leniency=info.context or Leniency())
            self.partial_images = 0
        return self


class Image(TypedDict):
    b64_json: NotRequired[str]
    url: NotRequired[str]


# OpenAI answers with the quality that an image has, and its types know none of the names that leave the choice open.
QUALITIES_ANSWERED: dict[str, str] = {
    Quality.AUTO: Quality.MEDIUM,
    Quality.STANDARD: Quality.MEDIUM,
    Quality.HD: Quality.HIGH,
}


class ImageSettings(TypedDict):
    background: str
    output_format: str
    quality: str
    size: str


class ImagesAnswer(ImageSettings):
    created: int
    data: list[Image]
    tier: Annotated[str, OneOf(PoolTier.values)]
    usage: JobUsage
    warnings: list[FieldWarning]
    job_id: str
    seed: int


class PartialImageEvent(ImageSettings):
    """OpenAI's `ImageGenPartialImageEvent`: a preview of an image while it is generated."""

    type: str
    b64_json: str
    partial_image_index: int
    created_at: int
    image_index: int


class CompletedImageEvent(ImageSettings, Image):
    """OpenAI's `ImageGenCompletedEvent`: an image of the job, whose `usage` is that of all its images."""

    type: str
    created_at: int
    usage: JobUsage
    warnings: list[FieldWarning]
    job_id: str
    seed: int
    image_index: int


IMAGE_EVENTS = {
    "image_generation.partial_image": PartialImageEvent,
    "image_generation.completed": CompletedImageEvent,
    "error": ErrorEvent,
}


class WaitsFor(NamedTuple):
    """The job that an admitted images call waits for; the call's fields say how it wants the answer."""

    tenant: Tenant
    access: Access
    job_id: UUID
    fields: ImagesInput
    request: HttpRequest


class ImagesSubmit(Resource):
    """The first half of an images call: it admits the job; `images_generations` waits for it."""

    scope = Scope.GENERATE

    @operation(
        "images_generations",
        ImagesAnswer,
        request=ImagesInput,
        events=IMAGE_EVENTS,
        headers=("Easel-Cost", "Easel-Cost-Currency"),
        errors=(*SUBMIT_ERRORS, StillRunning, ImagesDeleted, *declared_errors(JobFailed)),
    )
    def post(self, request: HttpRequest) -> HttpResponse:
        """Generate images and answer with them, as OpenAI's Images API does. With `stream` they come as events."""
        take(request, caller(request), now=clock.now())
        body = with_deployment(request, body_of(request))
        fields = ImagesInput.of(body, key=caller(request))
        spec = fields.spec(partial_images=fields.partial_images)
        outlives_client = fields.cancel_on_disconnect is False
        try:
            outcome = submit_waiting(request, spec, body, "images", outlives_client=outlives_client)
        except ClientDisconnected:
            return HttpResponse(status=499)  # for the log: nobody reads it
        accepted = HttpResponse(status=202, headers=REPLAYED if outcome.replayed else None)
        accepted.waits_for = WaitsFor(  # type: ignore[attr-defined]
            caller(request).tenant, access_of(request), outcome.resource_id, fields, request
        )
        return accepted


def _answer_images(waits_for: WaitsFor, ended: bool) -> HttpResponse:
    """Return the second half of an images call: the images of the job that it waited for, or a refusal."""
    try:
        waits_for.access.check()
        if not ended:
            raise waiting.still_running(tenant=waits_for.tenant, job_id=waits_for.job_id)
        job = queries.job_get(tenant=waits_for.tenant, job_id=waits_for.job_id)
        answer = images_json(job, links_of(waits_for.request), response_format=waits_for.fields.response_format)
        found = answer_json(answer, headers=_cost_headers(answer["usage"]))
        waits_for.access.confirm()  # after the images were read, which takes longer than to ask
        return found
    except Exception as error:
        refusal = errors.handle(error)
        if refusal is None:
            raise
        return refusal


def _cost_headers(usage: JobUsage) -> dict[str, str]:
    """Return the cost as headers, for gateways that don't read bodies. A stream's cost is in its events."""
    cost = usage["cost_details"]
    return {"Easel-Cost": plain(from_micros(cost["amount_micros"])), "Easel-Cost-Currency": cost["currency"]}


_submit_images = serve(ImagesSubmit, submits=True)


async def images_generations(request: HttpRequest) -> HttpResponseBase:
    """Admit on a thread, wait without one, answer on a thread. Django cancels this when the client goes away."""
    submission = asyncio.create_task(_submit_images(request))
    try:
        return await _images_answer(await asyncio.shield(submission))
    except asyncio.CancelledError:
        # A commit is not interrupted: the job that it makes meanwhile is abandoned too.
        if waits_for := getattr(await submission, "waits_for", None):
            await _abandon_if_disconnected(waits_for)
        raise


async def _images_answer(accepted: HttpResponseBase) -> HttpResponseBase:
    waits_for: WaitsFor | None = getattr(accepted, "waits_for", None)
    if waits_for is None:
        return accepted
    answer = await (_streamed_answer(waits_for) if waits_for.fields.stream else _whole_answer(waits_for))
    if replayed := accepted.headers.get("Idempotent-Replayed"):
        answer["Idempotent-Replayed"] = replayed
    return answer


async def _streamed_answer(waits_for: WaitsFor) -> HttpResponseBase:
    read_events, seconds = ImageStream(waits_for).read_events, settings.EASEL.request_wait_seconds
    late = partial(waiting.still_running, tenant=waits_for.tenant, job_id=waits_for.job_id)
    events = streaming.follow(
        waits_for.job_id, read_events, access=waits_for.access, timeout_seconds=seconds, late=late
    )
    return streaming.streamed(_until_disconnect(events, waits_for))


async def _whole_answer(waits_for: WaitsFor) -> HttpResponseBase:
    """Answer once the job has ended. A long wait begins its answer before, so that no proxy takes it for idle."""
    ends = waiting.ends(
        waits_for.job_id,
        timeout_seconds=settings.EASEL.request_wait_seconds,
        idle_seconds=settings.EASEL.keepalive_seconds,
        access=waits_for.access,
    )
    async with contextlib.AsyncExitStack() as waits:
        await waits.enter_async_context(contextlib.aclosing(ends))
        try:
            ended: bool | None = await anext(ends, None)
            # HTTP/1.0 ends a body by closing the connection, so that a client could not see that it was broken off.
            while ended is False and waits_for.request.scope["http_version"] == "1.0":  # type: ignore[attr-defined]
                ended = await anext(ends, None)
        except DomainError as lost:
            return errors.refusal_json(lost)
        if ended is False:
            waits.pop_all()  # the answer closes it
            headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
            body = _until_disconnect(_long_answer(waits_for, ends), waits_for)
            return StreamingHttpResponse(body, content_type="application/json", headers=headers)
    answer = await in_thread(_answer_images, waits_for, bool(ended))
    if answer.status_code >= 500 and not is_repeatable(waits_for.request):
        answer["x-should-retry"] = "false"  # a client library would make, and pay for, another job
    return answer


async def _long_answer(waits_for: WaitsFor, ends: AsyncGenerator[bool]) -> AsyncGenerator[bytes]:
    """Yield whitespace, which JSON may begin with, until the job has ended, and then the answer.

    A refusal is sent as it is, but the status has been sent before. So it is broken off: no client takes it for a
    success, and a client's retry gets the status at once. Raises `BrokenOff`.
    """
    ended = False
    # A lost access ends the wait; the answer is then its refusal.
    with contextlib.suppress(DomainError):
        async with contextlib.aclosing(ends):
            yield b" "
            async for ended in ends:
                if not ended:
                    yield b" "
    answer = await in_thread(_answer_images, waits_for, ended)
    yield answer.content
    if answer.status_code != 200:
        raise BrokenOff(f"job {waits_for.job_id}: {answer.status_code}")


async def _until_disconnect(parts: AsyncGenerator[bytes], waits_for: WaitsFor) -> AsyncGenerator[bytes]:
    try:
        async with contextlib.aclosing(parts):
            async for part in parts:
                yield part
    except (asyncio.CancelledError, GeneratorExit):
        await _abandon_if_disconnected(waits_for)
        raise


async def _abandon_if_disconnected(waits_for: WaitsFor) -> None:
    """Say that the client of a job is gone; where this process ends instead, the client may come back to another."""
    cancels = waits_for.fields.cancel_on_disconnect
    if cancels is False or not is_disconnected(waits_for.request):
        return
    abandon = partial(
        job_abandon,
        job_id=waits_for.job_id,
        retry_count=retry_count_of(waits_for.request),
        returns=has_key(waits_for.request),
        cancels=bool(cancels),
        now=clock.now(),
    )
    # If the database is unavailable the job goes on.
    with contextlib.suppress(OperationalError, InterfaceError):
        await in_thread(abandon)


described_by(ImagesSubmit, images_generations)


@dataclass(slots=True)
class ImageStream:
    """OpenAI's events for the images of one job: partial ones as they come, then each image, or an error."""

    waits_for: WaitsFor
    shown: set[tuple[int, int]] = field(default_factory=set)

    def read_events(self) -> tuple[list[bytes], bool]:
        """Return the events that are new, and True if they are the last."""
        job = queries.job_get(tenant=self.waits_for.tenant, job_id=self.waits_for.job_id)
        try:
            if job.finished_at is None:
                return list(self._partial(job)), False
            links = links_of(self.waits_for.request)
            images = stream_completed_json(job, links, response_format=self.waits_for.fields.response_format)
        except DomainError as error:
            return [streaming.failure(error)], True
        return [streaming.event(image["type"], image) for image in images], True

    def _partial(self, job: Job) -> Iterator[bytes]:
        for attempt in job.attempts.all():
            for index, number in attempt.previews:
                # A later attempt generates the same again.
                if (index, number) in self.shown:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    partial = stream_partial_json(job, attempt, index=index, number=number)
                    self.shown.add((index, number))
                    yield streaming.event(partial["type"], partial)


def images_json(job: Job, links: ImageLinks, *, response_format: str) -> ImagesAnswer:
    """OpenAI's `ImagesResponse`. Raises `JobFailed` when the job has no images, `ImagesDeleted`."""
    return {
        "created": int(job.created_at.timestamp()),
        "data": _images(job, links, response_format),
        **_settings_json(job),
        "tier": job.tier,
        "usage": usage_json(job, job_costs([job.id])[job.id]),
        "warnings": job.warnings,
        "job_id": str(job.id),
        "seed": job.seed,
    }


def stream_partial_json(job: Job, attempt: Attempt, *, index: int, number: int) -> dict[str, Any]:
    """OpenAI's `ImageGenPartialImageEvent`. Raises `FileNotFoundError`."""
    return {
        "type": "image_generation.partial_image",
        "b64_json": _preview_base64(job, preview_key(job, attempt.token, index, number)),
        "partial_image_index": number,
        "created_at": int(job.created_at.timestamp()),
        **_settings_json(job),
        "image_index": index,
    }


def stream_completed_json(job: Job, links: ImageLinks, *, response_format: str) -> list[dict[str, Any]]:
    """OpenAI's `ImageGenCompletedEvent` of each image; `usage` is the job's. Raises as `images_json`."""
    answer = images_json(job, links, response_format=response_format)
    return [
        {
            "type": "image_generation.completed",
            **image,
            "created_at": answer["created"],
            **_settings_json(job),
            "usage": answer["usage"],
            "warnings": answer["warnings"],
            "job_id": answer["job_id"],
            "seed": job.seed + index,
            "image_index": index,
        }
        for index, image in enumerate(answer["data"])
    ]


def _settings_json(job: Job) -> ImageSettings:
    return {
        "background": "opaque",
        "output_format": job.output_format,
        "quality": QUALITIES_ANSWERED.get(job.quality, job.quality),
        "size": f"{job.width}x{job.height}",
    }


def _images(job: Job, links: ImageLinks, response_format: str) -> list[Image]:
    if job.state == State.FAILED:
        raise JobFailed.of(job.error_code, job.error_message)
    if job.state != State.SUCCEEDED:
        how = "expired before it was generated" if job.state == State.EXPIRED else "was canceled"
        raise JobFailed.of(f"job_{job.state}", f"the job {job.id} {how}")
    outputs = list(job.outputs.filter(deleted_at=None))
    if not outputs:
        raise ImagesDeleted(f"the images of the job {job.id} were deleted")
    return [_image(output.storage_key, links, response_format) for output in outputs]


def _image(storage_key: str, links: ImageLinks, response_format: str) -> Image:
    image: Image = {}
    if response_format != "url":
        image["b64_json"] = _base64(storage_key)
    if response_format != "b64_json":
        image["url"] = links.url(storage_key)
    return image


def _preview_base64(job: Job, storage_key: str) -> str:
    """Read a preview, at which nobody has looked. Raises `FileNotFoundError`, also if it is too large."""
    bytes_max = image_bytes_max(width=job.width, height=job.height)
    with store().open(storage_key) as file:
        content = file.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise FileNotFoundError(storage_key)
    return base64.b64encode(content).decode()


def _base64(storage_key: str) -> str:
    return base64.b64encode(store().get(storage_key)).decode()
