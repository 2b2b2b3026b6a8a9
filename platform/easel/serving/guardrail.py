"""The guardrail of rollouts: samples the jobs of a stage, decides, and advances or rolls back."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from django.db import connection, transaction

from core.audit import audit_record
from easel.catalog.models import ModelVersion
from easel.serving.errors import RolloutEnded
from easel.serving.models import Rollout
from easel.serving.rollouts import rollout_advance, rollout_roll_back

# The stable version's sample reaches back before the rollout: while the candidate has 100 % it gets no new jobs.
STABLE_WINDOW = timedelta(days=7)
_SAMPLE = """
    SELECT count(*), count(*) FILTER (WHERE state = 'failed'),
           percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - created_at))
               FILTER (WHERE state = 'succeeded')
      FROM (SELECT state, created_at, finished_at FROM jobs_job
             WHERE model_version_id = %s AND finished_at >= %s AND state IN ('succeeded', 'failed')
               AND cached_from_id IS NULL  -- an image from the result cache measures no version
             ORDER BY finished_at DESC LIMIT 1000) AS latest
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Counts of a version's ended jobs and of the failed ones among them, and the p95 from request to image."""

    ended: int
    failed: int
    p95_seconds: float | None


class Decision(Enum):
    """The guardrail's verdict on a stage."""

    WAIT = "wait"
    ADVANCE = "advance"
    ROLL_BACK = "roll back"


def decide(rollout: Rollout, *, candidate: Sample, stable: Sample, now: datetime) -> tuple[Decision, str]:
    """Decides on a running rollout and says why. Waits while either version has too few jobs."""
    # Roll back early: even if all remaining jobs succeed, the error rate will exceed the limit.
    failed = f"{candidate.failed} of {candidate.ended} jobs failed"
    if candidate.failed > rollout.error_rate_max * max(candidate.ended, rollout.jobs_min):
        return Decision.ROLL_BACK, f"{failed}; the limit is {rollout.error_rate_max:.1%}"
    for name, sample in (("candidate", candidate), ("stable version", stable)):
        if sample.ended < rollout.jobs_min:
            return Decision.WAIT, f"waits for data: the {name} has {sample.ended} of the {rollout.jobs_min} jobs needed"
    if candidate.p95_seconds is not None and stable.p95_seconds:
        ratio = candidate.p95_seconds / stable.p95_seconds
        latency = f"p95 {candidate.p95_seconds:.2f} s against {stable.p95_seconds:.2f} s"
        if ratio > rollout.p95_ratio_max:
            return Decision.ROLL_BACK, f"{latency}: {ratio:.2f} times; the limit is {rollout.p95_ratio_max}"
    else:
        latency = "no job has succeeded yet"
    healthy = f"healthy: {failed}, {latency}"
    if now < rollout.stage_started_at + timedelta(seconds=rollout.stage_seconds):
        return Decision.WAIT, f"{healthy}; this stage lasts {rollout.stage_seconds} s"
    return Decision.ADVANCE, healthy


def rollouts_decide(*, now: datetime) -> int:
    """Advances or rolls back the running rollouts by their jobs; returns how many changed.

    Two processes may do it at once, since each change is conditional on the stage.
    """
    running = Rollout.objects.filter(state=Rollout.State.RUNNING)
    related = ("model", "stable__model", "candidate__model")
    return sum(_decide_one(rollout, now) for rollout in running.select_related(*related))


def sample(version: ModelVersion, *, since: datetime) -> Sample:
    """Sample a version's latest 1000 succeeded and failed jobs since an instant."""
    with connection.cursor() as cursor:
        cursor.execute(_SAMPLE, [version.pk, since])
        ended, failed, p95 = cursor.fetchone()
    return Sample(ended=ended, failed=failed, p95_seconds=p95)


@transaction.atomic
def _decide_one(rollout: Rollout, now: datetime) -> bool:
    decision, verdict = decide(
        rollout,
        candidate=sample(rollout.candidate, since=rollout.stage_started_at),
        stable=sample(rollout.stable, since=rollout.started_at - STABLE_WINDOW),
        now=now,
    )
    if decision is Decision.WAIT:
        Rollout.objects.filter(pk=rollout.pk, state=Rollout.State.RUNNING, stage=rollout.stage).update(verdict=verdict)
        return False
    carry_out = rollout_advance if decision is Decision.ADVANCE else rollout_roll_back
    try:
        changed = carry_out(rollout, verdict=verdict, now=now)
    except RolloutEnded:  # an operator ended it meanwhile
        return False
    audit_record(
        actor="platform",
        action=f"rollout.{decision.name.lower()}",
        subject=rollout.candidate.label,
        details={"verdict": verdict, "state": changed.state, "stage": changed.stage},
        now=now,
    )
    return True
