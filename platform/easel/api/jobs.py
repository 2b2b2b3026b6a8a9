"""Jobs: generations without a waiting client, their progress and their outcome, and feedback on them."""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Annotated, NotRequired
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from pydantic import Field
from typing_extensions import TypedDict

from billing.usage.queries import JobCost, job_costs
from core import clock
from core.errors import DomainError
from easel.api import streaming
from easel.api.access import Access, access_of
from easel.api.declaration import LEFT_OUT, AnyText, ErrorEvent, Input, Number, OneOf, PageQuery, operation
from easel.api.endpoint import endpoint
from easel.api.generation_input import JobInput
from easel.api.rate_limit import take
from easel.api.resource import Resource, answer_json, body_of, caller, described_by, links_of, serve
from easel.api.rows import Listed, listed, row_json
from easel.api.submission import REPLAYED, SUBMIT_ERRORS, submit
from easel.api.waiting import still_running
from easel.catalog.models import PoolTier
from easel.jobs import lifecycle, queries
from easel.jobs.deletion import job_delete
from easel.jobs.errors import FeedbackExists, JobDeleted, JobNotFound, JobNotSucceeded, JobUnfinished
from easel.jobs.feedback import feedback_give
from easel.jobs.models import Attempt, Job, JobAdapter, Output, State
from easel.jobs.outputs import ImageLinks, links_for, outputs_delete
from easel.jobs.queue_place import QueuePlace, queue_place
from easel.jobs.spec import FieldWarning
from easel.jobs.timeline import TimelineEvent, job_timeline, timeline_json
from easel.jobs.usage_json import JobUsage, usage_json
from easel.serving.tiers import Quality
from tenants.models import ApiKey, Scope


class JobsQuery(PageQuery):
    status: Annotated[str, OneOf(State.values)] = LEFT_OUT


class FeedbackInput(Input):
    score: Number = Field(ge=0, le=1, description="From 0 (bad) to 1 (good).")
    comment: AnyText = Field(default="", max_length=500)


class UsedAdapter(TypedDict):
    name: str
    version: int
    scale: float


class ArmOfJob(TypedDict):
    name: str
    arm: str


class Progress(TypedDict):
    steps_done: int
    steps_total: int


class JobImage(TypedDict):
    url: str
    seed: int
    size_bytes: int


class JobError(TypedDict):
    code: str
    message: str


class JobUrls(TypedDict):
    get: str
    events: str
    cancel: str
    feedback: str


class JobAnswer(TypedDict):
    id: str
    object: str
    request_id: str | None
    status: Annotated[str, OneOf(State.values)]
    created_at: datetime
    expires_at: datetime
    finished_at: datetime | None
    deleted_at: datetime | None
    cached_from: str | None
    model: str
    model_version: int
    prompt: str | None
    n: int
    size: str
    quality: Annotated[str, OneOf(Quality.values)]
    tier: Annotated[str, OneOf(PoolTier.values)]
    steps: int
    seed: int
    adapters: list[UsedAdapter]
    experiment: ArmOfJob | None
    project: str
    metadata: dict[str, str]
    attempts: int
    progress: Progress
    images: list[JobImage]
    warnings: list[FieldWarning]
    usage: JobUsage | None
    error: JobError | None
    urls: JobUrls
    queue: NotRequired[QueuePlace | None]
    timeline: NotRequired[list[TimelineEvent]]


class FeedbackAnswer(TypedDict):
    object: str
    job_id: str
    score: float
    comment: str
    created_at: datetime


JOB_EVENTS = {**{f"job.{state}": JobAnswer for state in State.values}, "error": ErrorEvent}


class Jobs(Resource):
    """Generations without a waiting client."""

    scope = Scope.GENERATE

    @operation("jobs_create", JobAnswer, request=JobInput, status=202, headers=("Location",), errors=SUBMIT_ERRORS)
    def post(self, request: HttpRequest) -> HttpResponse:
        """Accept a generation, without waiting for it."""
        take(request, caller(request), now=clock.now())
        body = body_of(request)
        spec = JobInput.of(body, key=caller(request)).spec()
        outcome, job = submit(request, spec, body, "jobs")
        if job is not None and job.state == State.QUEUED:
            # Just admitted: no attempts, no images, and adapters only where the request or its arm names some.
            adapters = list(job.adapters.all()) if spec.adapters or job.arm_id is not None else ()
            shown = _job_json(job, None, links_of(request), attempts=(), outputs=(), adapters=adapters)
        else:
            shown = job_json(_job(request, outcome.resource_id), links_of(request))
        headers = {"Location": shown["urls"]["get"], **(REPLAYED if outcome.replayed else {})}
        return answer_json(shown, status=202, headers=headers)

    @operation("jobs_list", Listed[JobAnswer], query=JobsQuery, errors=(JobNotFound,))
    def get(self, request: HttpRequest) -> HttpResponse:
        """List your jobs, the latest first."""
        query = JobsQuery.read(request.GET.dict())
        jobs, more = queries.jobs_page(tenant=caller(request).tenant, state=query.status, **query.page())
        return answer_json(listed(jobs_json(jobs, links_of(request)), has_more=more))


class JobDetail(Resource):
    scope = Scope.GENERATE

    @operation("jobs_get", JobAnswer, errors=(JobNotFound,))
    def get(self, request: HttpRequest, job_id: UUID) -> HttpResponse:
        """Show a job with its progress, its images and its cost."""
        return answer_json(job_json(_job(request, job_id), links_of(request)))

    @operation("jobs_delete", JobAnswer, errors=(JobNotFound, JobUnfinished))
    def delete(self, request: HttpRequest, job_id: UUID) -> HttpResponse:
        """Delete the images, prompt, metadata and user of a finished job. Its usage and its cost stay."""
        job_delete(job=_job(request, job_id), actor=_actor(request), now=clock.now())
        return answer_json(job_json(_job(request, job_id), links_of(request)))


class JobEvents(Resource):
    """The first half of following a job: it finds the job and the caller's key; `job_events` follows it."""

    scope = Scope.GENERATE

    @operation("jobs_events", events=JOB_EVENTS, errors=(JobNotFound,))
    def get(self, request: HttpRequest, job_id: UUID) -> HttpResponse:
        """Send the job at each change until it has ended; `Last-Event-ID` leaves out what the client has seen."""
        _job(request, job_id)
        found = HttpResponse()
        found.key = caller(request)  # type: ignore[attr-defined]  # there once the request was let in
        return found


_find_job = serve(JobEvents)


async def job_events(request: HttpRequest, job_id: UUID) -> HttpResponseBase:
    """Find the job on a thread, then follow it without one."""
    found = await _find_job(request, job_id=job_id)
    key: ApiKey | None = getattr(found, "key", None)
    if key is None:
        return found
    seen, seconds = request.headers.get("Last-Event-ID", ""), settings.EASEL.job_ttl_seconds
    events = job_follow(key, job_id, access=access_of(request), seen=seen, timeout_seconds=seconds)
    return streaming.streamed(events)


described_by(JobEvents, job_events)


def job_follow(
    key: ApiKey, job_id: UUID, *, access: Access, seen: str, timeout_seconds: float
) -> AsyncGenerator[bytes]:
    """Yield `job.<status>` at every change, until the job has ended. `seen` is the id of the client's last event."""

    def read_events() -> tuple[list[bytes], bool]:
        nonlocal seen
        try:
            job = queries.job_get(tenant=key.tenant, job_id=job_id)
            links = links_for(key, base=settings.EASEL.public_url, now=clock.now())
            shown = job_json(job, links)
        except DomainError as error:
            return [streaming.failure(error)], True
        before, seen = seen, f"{shown['attempts']}-{shown['progress']['steps_done']}-{job.state}"
        found = [] if seen == before else [streaming.event(f"job.{job.state}", shown, event_id=seen)]
        return found, job.finished_at is not None

    def late() -> DomainError:
        return still_running(tenant=key.tenant, job_id=job_id)

    return streaming.follow(job_id, read_events, access=access, timeout_seconds=timeout_seconds, late=late)


@endpoint("post", "jobs_cancel", JobAnswer, errors=(JobNotFound,), scope=Scope.GENERATE)
def job_cancel(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """Cancel a job. One that waits ends at once; of one that runs the worker is asked to stop."""
    lifecycle.cancel(job=_job(request, job_id), now=clock.now())
    return answer_json(job_json(_job(request, job_id), links_of(request)))


@endpoint("delete", "jobs_images_delete", JobAnswer, errors=(JobNotFound,), scope=Scope.GENERATE)
def job_images(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """Delete the images, and end the charge for storing them."""
    outputs_delete(job=_job(request, job_id), actor=_actor(request), now=clock.now())
    return answer_json(job_json(_job(request, job_id), links_of(request)))


@endpoint(
    "post",
    "jobs_feedback",
    FeedbackAnswer,
    request=FeedbackInput,
    status=201,
    errors=(JobNotFound, JobNotSucceeded, JobDeleted, FeedbackExists),
    scope=Scope.GENERATE,
)
def job_feedback(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """Record your end user's opinion of a job's images, once per job."""
    given = FeedbackInput.read(body_of(request))
    job = _job(request, job_id)
    feedback = feedback_give(job=job, now=clock.now(), score=given.score, comment=given.comment)
    return answer_json(row_json(FeedbackAnswer, feedback, object="feedback"), status=201)


def _job(request: HttpRequest, job_id: UUID) -> Job:
    """Return the caller's job. Raises `JobNotFound`, also for another tenant's."""
    return queries.job_get(tenant=caller(request).tenant, job_id=job_id)


def _actor(request: HttpRequest) -> str:
    """Return the caller's name in the audit log."""
    return f"key:{caller(request).key_id}"


def jobs_json(jobs: Sequence[Job], links: ImageLinks) -> list[JobAnswer]:
    costs = job_costs([job.id for job in jobs])
    return [
        _job_json(
            job,
            costs.get(job.id),
            links,
            attempts=list(job.attempts.all()),
            outputs=list(job.outputs.all()),
            adapters=list(job.adapters.all()),
        )
        for job in jobs
    ]


def job_json(job: Job, links: ImageLinks) -> JobAnswer:
    """Return a job with its place in the queue and its timeline, which lists and the answer of a submission leave out:
    each takes some queries."""
    now = clock.now()
    moments = job_timeline(job, list(job.attempts.all()), lease_seconds=settings.EASEL.lease_seconds, now=now)
    return {**jobs_json([job], links)[0], "queue": queue_place(job, now=now), "timeline": timeline_json(job, moments)}


def _job_json(
    job: Job,
    cost: JobCost | None,
    links: ImageLinks,
    *,
    attempts: Sequence[Attempt],
    outputs: Sequence[Output],
    adapters: Sequence[JobAdapter],
) -> JobAnswer:
    path = f"{settings.EASEL.public_url}/v1/jobs/{job.id}"
    return {
        "id": str(job.id),
        "object": "job",
        "request_id": job.request_id or None,
        "status": job.state,
        "created_at": job.created_at,
        "expires_at": job.expires_at,
        "finished_at": job.finished_at,
        "deleted_at": job.deleted_at,
        "cached_from": str(job.cached_from_id) if job.cached_from_id else None,
        "model": job.model_version.model.name,
        "model_version": job.model_version.number,
        "prompt": None if job.deleted_at else job.prompt,
        "n": job.n,
        "size": f"{job.width}x{job.height}",
        "quality": job.quality,
        "tier": job.tier,
        "steps": job.steps,
        "seed": job.seed,
        "adapters": [
            {"name": used.adapter_version.adapter.name, "version": used.adapter_version.number, "scale": used.scale}
            for used in adapters
        ],
        "experiment": {"name": job.arm.experiment.name, "arm": job.arm.name} if job.arm else None,
        "project": job.project.slug,
        "metadata": job.metadata,
        "attempts": len(attempts),
        "progress": _progress_json(job, attempts),
        "images": [_image_json(output, links) for output in outputs if output.deleted_at is None],
        "warnings": job.warnings,
        "usage": usage_json(job, cost) if cost else None,
        "error": {"code": job.error_code, "message": job.error_message} if job.error_code else None,
        "urls": {"get": path, "events": f"{path}/events", "cancel": f"{path}/cancel", "feedback": f"{path}/feedback"},
    }


def _progress_json(job: Job, attempts: Sequence[Attempt]) -> Progress:
    steps_total = job.steps * job.n
    without_attempt = steps_total if job.cached_from_id else 0
    return {"steps_done": attempts[-1].steps_done if attempts else without_attempt, "steps_total": steps_total}


def _image_json(output: Output, links: ImageLinks) -> JobImage:
    return {"url": links.url(output.storage_key), "seed": output.seed, "size_bytes": output.size_bytes}
