"""OpenAI's batches: many requests for images in one file, for less, as far as pools are idle."""

from datetime import datetime
from functools import partial
from typing import Annotated, Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from pydantic import Field
from typing_extensions import TypedDict

from core import clock
from easel.api.declaration import LEFT_OUT, Input, OneOf, Text, UrlQuery, operation
from easel.api.endpoint import endpoint
from easel.api.errors import UnsupportedParameter
from easel.api.expires_after import ExpiresAfterInput, seconds_of
from easel.api.generation_input import Metadata
from easel.api.images import ImagesInput
from easel.api.rate_limit import RateLimited, take
from easel.api.resource import Resource, answer_json, body_of, caller
from easel.api.rows import Listed, listed
from easel.api.submission import IDEMPOTENCY_ERRORS, REPLAYED, make_once, replay_find
from easel.batches import lifecycle, queries
from easel.batches.errors import BatchNotFound, FileInvalid, FileNotFound, WindowInvalid
from easel.batches.models import Batch
from easel.batches.reading import Request
from tenants.models import ApiKey, Scope

ENDPOINT = "/v1/images/generations"
STATUSES = ("validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled")
# Fields of a generation that say how its client waits, which a line of a batch doesn't.
_WITHOUT = ("stream", "cancel_on_disconnect", "expires_in_seconds")


class BatchInput(Input):
    input_file_id: Text = Field(description="A file that was uploaded with the purpose `batch`.")
    endpoint: Annotated[str, OneOf((ENDPOINT,))]
    completion_window: Text = Field(description="`24h`, or another whole number of hours from `1h` to `168h`.")
    metadata: Metadata = LEFT_OUT
    output_expires_after: ExpiresAfterInput = Field(
        default=LEFT_OUT,
        description="When its output files are deleted, from their own `created_at`; without it after 30 days.",
    )


class BatchesQuery(UrlQuery):
    limit: int = Field(default=20, ge=1, le=100)
    after: Text = Field(default=LEFT_OUT, description="The id that the page begins after.")


class BatchFault(TypedDict):
    code: str
    line: int | None
    message: str
    param: str | None


class BatchFaults(TypedDict):
    object: str
    data: list[BatchFault]


class BatchCounts(TypedDict):
    total: int
    completed: int
    failed: int


class BatchWaitsFor(TypedDict):
    code: str
    message: str


class BatchAnswer(TypedDict):
    """OpenAI's `Batch`, with times in Unix seconds, and with `waiting_for`: what its next line waits for, beside a
    place in a pool. The batch goes on by itself once that has passed.
    """

    id: str
    object: str
    endpoint: str
    errors: BatchFaults | None
    input_file_id: str
    completion_window: str
    status: Annotated[str, OneOf(STATUSES)]
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: BatchCounts
    waiting_for: BatchWaitsFor | None
    metadata: dict[str, str] | None


class Batches(Resource):
    scope = Scope.GENERATE

    @operation(
        "batches_create",
        BatchAnswer,
        request=BatchInput,
        errors=(RateLimited, FileNotFound, FileInvalid, WindowInvalid, *IDEMPOTENCY_ERRORS),
    )
    def post(self, request: HttpRequest) -> HttpResponse:
        """Begin a batch: its file is read now. A fault in any line makes the batch `failed`, with the faults of all."""
        key, now, body = caller(request), clock.now(), body_of(request)
        take(request, key, now=now)
        fields = BatchInput.read(body)
        outcome = replay_find(request, body, "batches")
        if outcome is None:
            batch, lines = lifecycle.batch_prepare(
                api_key=key,
                input_file=queries.file_get(tenant=key.tenant, name=fields.input_file_id, param="input_file_id"),
                endpoint=fields.endpoint,
                hours=lifecycle.window_hours(fields.completion_window),
                metadata=fields.metadata or {},
                output_seconds=seconds_of(fields.output_expires_after),
                read_body=lambda given: line_request(given, key),
                config=settings.EASEL,
                now=now,
            )
            write = partial(lifecycle.batch_write, batch, lines, now=now)
            outcome = make_once(request, body, "batches", now=now, make=write)
        found = queries.batch_get(tenant=key.tenant, name=f"batch_{outcome.resource_id.hex}", now=now)
        return answer_json(batch_json(found), headers=REPLAYED if outcome.replayed else None)

    @operation("batches_list", Listed[BatchAnswer], query=BatchesQuery, errors=(BatchNotFound,))
    def get(self, request: HttpRequest) -> HttpResponse:
        """List batches, the newest first."""
        query = BatchesQuery.read(request.GET.dict())
        tenant = caller(request).tenant
        batches, more = queries.batches_page(tenant=tenant, limit=query.limit, after=query.after, now=clock.now())
        return answer_json(listed([batch_json(batch) for batch in batches], has_more=more))


@endpoint("get", "batches_get", BatchAnswer, errors=(BatchNotFound,), scope=Scope.GENERATE)
def batch_detail(request: HttpRequest, batch_id: str) -> HttpResponse:
    """Show a batch."""
    return answer_json(batch_json(queries.batch_get(tenant=caller(request).tenant, name=batch_id, now=clock.now())))


@endpoint("post", "batches_cancel", BatchAnswer, request=None, errors=(BatchNotFound,), scope=Scope.GENERATE)
def batch_cancel(request: HttpRequest, batch_id: str) -> HttpResponse:
    """Cancel what workers have not begun. Images that they are generating are finished, and are in the output file."""
    tenant, now = caller(request).tenant, clock.now()
    lifecycle.batch_cancel(batch=queries.batch_get(tenant=tenant, name=batch_id, now=now), now=now)
    return answer_json(batch_json(queries.batch_get(tenant=tenant, name=batch_id, now=now)))


def line_request(body: Any, key: ApiKey) -> Request:
    """Read the body of a line as the images call would. An image is shown by its URL unless the body says otherwise."""
    fields = ImagesInput.of(body, key=key)
    for name in _WITHOUT:
        if getattr(fields, name):
            raise UnsupportedParameter(f"{name} can't be in a line of a batch: leave it out", param=name)
    # The body itself: the default of an alias is for a client that waits for its images.
    is_asked = body.get("response_format") is not None
    return Request(fields.spec(), fields.response_format if is_asked else "url")


def batch_json(batch: Batch) -> BatchAnswer:
    began = int(batch.created_at.timestamp())

    def ended_as(status: Batch.Status) -> int | None:
        return _seconds(batch.ended_at) if batch.status == status else None

    faults: Any = batch.faults
    waiting_for: Any = queries.waiting_for(batch)
    return {
        "id": str(batch),
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": faults} if faults else None,
        "input_file_id": str(batch.input_file),
        "completion_window": f"{batch.window_hours}h",
        "status": batch.status,
        "output_file_id": str(batch.output_file) if batch.output_file else None,
        "error_file_id": str(batch.error_file) if batch.error_file else None,
        "created_at": began,
        # The file is read, and the outputs are ready, within one request and one transaction.
        "in_progress_at": None if batch.status == Batch.Status.FAILED else began,
        "expires_at": int(batch.expires_at.timestamp()),
        "finalizing_at": ended_as(Batch.Status.COMPLETED),
        "completed_at": ended_as(Batch.Status.COMPLETED),
        "failed_at": ended_as(Batch.Status.FAILED),
        "expired_at": ended_as(Batch.Status.EXPIRED),
        "cancelling_at": _seconds(batch.cancelling_at),
        "cancelled_at": ended_as(Batch.Status.CANCELLED),
        "request_counts": {
            "total": batch.lines_total,
            "completed": batch.lines_completed,
            "failed": batch.lines_failed,
        },
        "waiting_for": waiting_for,
        "metadata": batch.metadata or None,
    }


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
