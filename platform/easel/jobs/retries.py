"""Clients that stop waiting for their job: what becomes of it, and how their retry finds it again.

A client that times out sends its request again and can't know that the first made a job. OpenAI's libraries number
their requests (`x-stainless-retry-count`: 0, 1, 2), so a retry can be told from a new call. `ClientCall` remembers the
request behind each such job, and a retry takes the job of an equal request over instead of making another.

Equal calls at the same time can't be told apart, so a retry may take the job of its twin, whose retry then takes the
other one. Two rules make that safe:

- A job is made only if no job of an equal call can be taken over. Each job in question was then taken over last by a
  request of this very number, each of another call, so there are never more jobs than calls.
- A retry prefers jobs that no client waits for. While disconnects are noticed before the retries arrive, each retry so
  finds a job that no other call waits for.

Every function here locks the job first, and the call after it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from core.pipeline import PipelinedQuery, Query, run_pipelined
from core.revision import revision_validate
from easel.jobs import lifecycle
from easel.jobs.models import ClientCall, Job, State
from tenants.models import ApiKey, Tenant

# How long after its end a job whose client disconnected answers a retry. Libraries retry within seconds.
ABANDONED_SECONDS = 600
# The same where no disconnect was noticed: the client most likely has its answer, and a retry that finds no other job
# is one of another call, whose earlier request was lost on its way.
ANSWERED_SECONDS = 60
BATCH = 1000


class CallTaken(Exception):
    """Another request wrote a job that this one can take over, or took what this one was to replace: look again."""


@dataclass(frozen=True, slots=True)
class NumberedRequest:
    """A request of a client that numbers its retries; the requests of one call differ in `retry_count` alone."""

    api_key: ApiKey
    endpoint: str
    fingerprint: bytes
    retry_count: int
    now: datetime

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "api_key": self.api_key.pk,
            "endpoint": self.endpoint,
            "fingerprint": self.fingerprint,
            "retry_count": self.retry_count,
            "now": self.now,
            "abandoned_since": self.now - timedelta(seconds=ABANDONED_SECONDS),
            "answered_since": self.now - timedelta(seconds=ANSWERED_SECONDS),
        }


@dataclass(frozen=True, slots=True)
class Found:
    """The job of an earlier equal request. One that was canceled since its client disconnected is to be replaced."""

    job_id: UUID
    is_canceled: bool


# A job that its tenant canceled is neither joined nor replaced.
_IS_CANCELED = "(job.state = 'canceled' OR job.cancel_requested_at IS NOT NULL AND job.finished_at IS NULL)"
_EARLIER = f"""
  FROM jobs_job AS job JOIN jobs_clientcall AS call ON call.job_id = job.id
 WHERE call.api_key_id = %(api_key)s::uuid AND call.endpoint = %(endpoint)s::text
   AND call.fingerprint = %(fingerprint)s::bytea
   AND job.images_deleted_at IS NULL
   AND CASE WHEN job.abandoned_at IS NULL
            THEN call.retry_count <> %(retry_count)s::int AND NOT {_IS_CANCELED}
                 AND (job.finished_at IS NULL
                      OR greatest(job.finished_at, call.requested_at) > %(answered_since)s)
            ELSE job.finished_at IS NULL OR job.finished_at > %(abandoned_since)s END
"""
# The last waiter's number is the next lower one, unless a request was lost or overtaken.
_FIND = f"""
SELECT job.id, job.abandoned_at IS NOT NULL, {_IS_CANCELED}, call.retry_count {_EARLIER}
 ORDER BY job.abandoned_at IS NULL, {_IS_CANCELED}, call.retry_count > %(retry_count)s::int,
       abs(call.retry_count - %(retry_count)s::int), job.created_at, job.id
 LIMIT 1 FOR NO KEY UPDATE OF job, call
"""
_COLUMNS = "(job_id, api_key_id, endpoint, fingerprint, retry_count, requested_at)"
_VALUES = (
    "%(job)s::uuid, %(api_key)s::uuid, %(endpoint)s::text, %(fingerprint)s::bytea, %(retry_count)s::int,"
    " %(now)s::timestamptz"
)
_INSERT = f"INSERT INTO jobs_clientcall {_COLUMNS} SELECT {_VALUES}"
_INSERT_FIRST = f"{_INSERT} RETURNING job_id"
_INSERT_RETRY = f"{_INSERT} WHERE NOT EXISTS (SELECT {_EARLIER}) RETURNING job_id"
_REPLACE = f"""
WITH replaced AS (DELETE FROM jobs_clientcall WHERE job_id = %(replaces)s::uuid RETURNING job_id)
{_INSERT} FROM replaced RETURNING job_id
"""  # noqa: S608 - of nothing but constants


@transaction.atomic
def call_join(request: NumberedRequest) -> Found | None:
    """Take over the job of an earlier request of an equal call, if there is one; a canceled one is only found.

    Raises `RevisionChanged`, and then nothing is taken over.
    """
    _, found = run_pipelined(revision_validate(), _find(request))
    if found is None:
        return None
    job_id, is_abandoned, is_canceled, retry_count = found
    # A request that was overtaken by its own retry joins, and the retry stays the one whose disconnect counts.
    if not is_canceled and (is_abandoned or retry_count < request.retry_count):
        Job.objects.filter(id=job_id).update(abandoned_at=None)
        call = ClientCall.objects.filter(job_id=job_id)
        call.update(retry_count=request.retry_count, requested_at=request.now)
    return Found(job_id, is_canceled)


def _find(request: NumberedRequest) -> PipelinedQuery[tuple[UUID, bool, bool, int] | None]:
    rows = yield Query(_FIND, request.parameters)
    return rows[0] if rows else None


def call_insert(request: NumberedRequest, job: Job, *, replaces: UUID | None = None) -> PipelinedQuery[None]:
    """Remember the request that makes a job, on the round trip of the job, after its hold was taken.

    The hold's lock makes the admissions of a tenant take turns, so nothing that `call_join` missed is missed here.
    Raises `CallTaken`; then nothing may be committed.
    """
    sql = _INSERT_FIRST
    if request.retry_count:
        sql = _INSERT_RETRY if replaces is None else _REPLACE
    if not (yield Query(sql, {**request.parameters, "job": job.id, "replaces": replaces})):
        raise CallTaken


@transaction.atomic
def job_abandon(*, job_id: UUID, retry_count: int | None, returns: bool, cancels: bool, now: datetime) -> None:
    """Mark the job of a client that disconnected, unless a later request of its call waits for the job already.

    A queued job is canceled, unless the client `returns`, as it said by an Idempotency-Key. A dispatched or running
    one goes on until `abandoned_jobs_cancel`, unless the client said that a disconnect `cancels` it.
    """
    job = Job.objects.select_for_update(of=("self",)).get(id=job_id)
    call = ClientCall.objects.filter(job_id=job_id).first()
    if call is not None and call.retry_count != retry_count:
        return
    job.abandoned_at = now
    job.save(update_fields=["abandoned_at"])
    if cancels or (job.state == State.QUEUED and not returns):
        lifecycle.cancel(job=job, now=now)


@transaction.atomic
def job_return(*, job_id: UUID) -> bool:
    """Unmark a job whose client is back; return False if it was canceled meanwhile, because its client was away."""
    job = Job.objects.select_for_update(of=("self",)).get(id=job_id)
    if job.abandoned_at is None:
        return True
    if job.state == State.CANCELED or (job.cancel_requested_at is not None and job.finished_at is None):
        return False
    job.abandoned_at = None
    job.save(update_fields=["abandoned_at"])
    return True


def abandoned_jobs_cancel(*, now: datetime, grace_seconds: int, tenants: Collection[Tenant] | None = None) -> int:
    """Cancel unfinished jobs whose client has been away for `grace_seconds`; return how many."""
    due = Q(abandoned_at__lte=now - timedelta(seconds=grace_seconds), finished_at=None, cancel_requested_at=None)
    jobs = Job.objects.filter(due).order_by("abandoned_at")
    if tenants is not None:
        jobs = jobs.filter(tenant__in=tenants)
    return sum(_cancel_if(due, job_id, now) for job_id in list(jobs.values_list("id", flat=True)[:BATCH]))


@transaction.atomic
def _cancel_if(due: Q, job_id: UUID, now: datetime) -> bool:
    # A client that came back before the lock has unmarked the job.
    job = Job.objects.select_for_update(of=("self",)).filter(due, id=job_id).first()
    if job is None:
        return False
    lifecycle.cancel(job=job, now=now)
    return True


def calls_delete(*, now: datetime) -> int:
    """Forget the calls that no retry can join any more."""
    ended = now - timedelta(seconds=ABANDONED_SECONDS)
    return ClientCall.objects.filter(job__finished_at__lt=ended, requested_at__lt=ended).delete()[0]
