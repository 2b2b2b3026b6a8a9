"""The guardrail of rollouts: what a stage's jobs say of the candidate, and what follows from it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from django.db import connection, transaction

from core.audit import audit_record
from easel.catalog.models import ModelVersion
from easel.serving.errors import RolloutEnded
from easel.serving.models import Rollout
from easel.serving.rollouts import rollout_advance, rollout_roll_back

# The stable version is judged by its latest jobs, also those before the rollout: at 100 % it has no others.
STABLE_WINDOW = timedelta(days=7)
_SAMPLE = """
    SELECT count(*), count(*) FILTER (WHERE state = 'failed'),
           percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - created_at))
               FILTER (WHERE state = 'succeeded')
      FROM (SELECT state, created_at, finished_at FROM jobs_job
             WHERE model_version_id = %s AND finished_at >= %s AND state IN ('succeeded', 'failed')
               AND cached_from_id IS NULL  -- what no worker drew says nothing of the version
             ORDER BY finished_at DESC LIMIT 1000) AS latest
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Ended jobs of a version, of them the failed ones, and the p95 of seconds from request to image."""

    ended: int
    failed: int
    p95_seconds: float | None


class Decision(Enum):
    WAIT = "wait"
    ADVANCE = "advance"
    ROLL_BACK = "roll back"


def decide(rollout: Rollout, *, candidate: Sample, stable: Sample, now: datetime) -> tuple[Decision, str]:
    """What to do with a running rollout, and why in words. Waits while the jobs are too few to tell."""
    # Whatever the jobs to come bring, this many failures are too many of the number that a verdict needs.
    if candidate.failed > rollout.error_rate_max * max(candidate.ended, rollout.jobs_min):
        return Decision.ROLL_BACK, (
            f"{candidate.failed} of {candidate.ended} jobs failed; {rollout.error_rate_max:.1%} are allowed"
        )
    for name, sample in (("candidate", candidate), ("stable version", stable)):
        if sample.ended < rollout.jobs_min:
            return Decision.WAIT, f"waits for data: the {name} has {sample.ended} of the {rollout.jobs_min} jobs needed"
    if candidate.p95_seconds is not None and stable.p95_seconds:
        ratio = candidate.p95_seconds / stable.p95_seconds
        seen = f"p95 {candidate.p95_seconds:.2f} s against {stable.p95_seconds:.2f} s"
        if ratio > rollout.p95_ratio_max:
            return Decision.ROLL_BACK, f"{seen}: {ratio:.2f} times, and {rollout.p95_ratio_max} are allowed"
    else:
        seen = "no success to time yet"
    healthy = f"healthy: {candidate.failed} of {candidate.ended} jobs failed, {seen}"
    if now < rollout.stage_started_at + timedelta(seconds=rollout.stage_seconds):
        return Decision.WAIT, f"{healthy}; this stage lasts {rollout.stage_seconds} s"
    return Decision.ADVANCE, healthy


def rollouts_decide(*, now: datetime) -> int:
    """Moves every running rollout as its jobs say; returns how many moved. May run twice: a move is conditional."""
    running = Rollout.objects.filter(state=Rollout.State.RUNNING).select_related(
        "model", "stable__model", "candidate__model"
    )
    return sum(_decide_one(rollout, now) for rollout in running)


def sample(version: ModelVersion, *, since: datetime) -> Sample:
    """A version's latest ended jobs since an instant, at most a thousand; canceled and expired ones say nothing."""
    with connection.cursor() as cursor:
        cursor.execute(_SAMPLE, [version.pk, since])
        ended, failed, p95 = cursor.fetchone()
    return Sample(ended=ended, failed=failed, p95_seconds=p95)


@transaction.atomic
def _decide_one(rollout: Rollout, now: datetime) -> bool:
    move, why = decide(
        rollout,
        candidate=sample(rollout.candidate, since=rollout.stage_started_at),
        stable=sample(rollout.stable, since=rollout.started_at - STABLE_WINDOW),
        now=now,
    )
    if move is Decision.WAIT:
        Rollout.objects.filter(pk=rollout.pk, state=Rollout.State.RUNNING, stage=rollout.stage).update(verdict=why)
        return False
    try:
        moved = (rollout_advance if move is Decision.ADVANCE else rollout_roll_back)(rollout, verdict=why, now=now)
    except RolloutEnded:  # an operator was quicker
        return False
    audit_record(
        actor="platform",
        action=f"rollout.{move.name.lower()}",
        subject=rollout.candidate.label,
        details={"verdict": why, "state": moved.state, "stage": moved.stage},
        now=now,
    )
    return True
