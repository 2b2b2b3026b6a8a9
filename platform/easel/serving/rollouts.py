"""Rollouts: a candidate version replaces the stable one stage by stage, or the stable one gets all callers back.

`easel.serving.guardrail` decides; the verbs here carry it out.
"""

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from django.db import transaction

from core.pages import page_after
from easel.catalog.models import Model, ModelVersion
from easel.serving.errors import RolloutEnded, RolloutInvalid, RolloutNotFound, RolloutRunning
from easel.serving.models import Rollout, Route
from easel.serving.routing import routes_replace


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPlan:
    """The candidate's percentage in each stage, up to 100, and the limits that each stage must meet."""

    stages: Sequence[int] = (5, 25, 50, 100)
    stage_seconds: int = 600
    jobs_min: int = 20
    error_rate_max: float = 0.05
    p95_ratio_max: float = 1.5


@transaction.atomic
def rollout_start(*, candidate: ModelVersion, plan: RolloutPlan, now: datetime) -> Rollout:
    """Give the candidate its first share of its model's callers.

    Raises `RolloutRunning`, and `RolloutInvalid` for an invalid plan and unless exactly one other version serves the
    model.
    """
    _check(plan)
    model = Model.objects.select_for_update().get(pk=candidate.model_id)
    if Rollout.objects.filter(model=model, state=Rollout.State.RUNNING).exists():
        raise RolloutRunning
    routes = list(Route.objects.filter(model=model).select_related("version"))
    if len(routes) != 1:
        raise RolloutInvalid(f"{model.name} is shared by {len(routes)} versions: route it to one of them first")
    stable = routes[0].version
    if stable == candidate:
        raise RolloutInvalid(f"{candidate.label} serves {model.name} already")
    if candidate.retired_at is not None:
        raise RolloutInvalid(f"{candidate.label} is retired")
    rollout = Rollout.objects.create(
        model=model,
        stable=stable,
        candidate=candidate,
        stage_started_at=now,
        started_at=now,
        verdict="just started",
        **{**asdict(plan), "stages": list(plan.stages)},
    )
    _route(rollout)
    return rollout


@transaction.atomic
def rollout_advance(rollout: Rollout, *, verdict: str, now: datetime) -> Rollout:
    """Start the next stage, or promote the candidate after the last one. Raises `RolloutEnded`.

    Changes nothing if the rollout has left the stage that `rollout` has, which the verdict is about.
    """
    decided_stage, rollout = rollout.stage, _locked(rollout)
    if rollout.stage != decided_stage:
        return rollout
    if rollout.stage + 1 == len(rollout.stages):
        return _end(rollout, Rollout.State.PROMOTED, verdict, now)
    rollout.stage += 1
    rollout.stage_started_at, rollout.verdict = now, verdict[:300]
    rollout.save(update_fields=["stage", "stage_started_at", "verdict"])
    _route(rollout)
    return rollout


@transaction.atomic
def rollout_promote(rollout: Rollout, *, verdict: str, now: datetime) -> Rollout:
    """Routes all callers to the candidate. Raises `RolloutEnded`."""
    return _end(_locked(rollout), Rollout.State.PROMOTED, verdict, now)


@transaction.atomic
def rollout_roll_back(rollout: Rollout, *, verdict: str, now: datetime) -> Rollout:
    """Routes all callers to the stable version again; `verdict` says why. Raises `RolloutEnded`."""
    return _end(_locked(rollout), Rollout.State.ROLLED_BACK, verdict, now)


def rollouts_page(*, model_name: str | None, limit: int, after: uuid.UUID | None) -> tuple[list[Rollout], bool]:
    """List rollouts of one model or of all, newest first, those after `after`; return True too if more follow.

    Raises `RolloutNotFound`.
    """
    rows = Rollout.objects.select_related("model", "stable", "candidate")
    if model_name is not None:
        rows = rows.filter(model__name=model_name)
    last = Rollout.objects.filter(pk=after).first() if after is not None else None
    if after is not None and last is None:
        raise RolloutNotFound
    return page_after(rows, order=("-started_at", "-id"), after=last, limit=limit)


def _check(plan: RolloutPlan) -> None:
    stages = list(plan.stages)
    if not stages or stages != sorted(set(stages)) or stages[0] < 1 or stages[-1] != 100:
        raise RolloutInvalid(f"stages must be rising percentages from 1 or more up to 100, as in 5,25,50,100: {stages}")
    if plan.stage_seconds < 0 or plan.jobs_min < 1:
        raise RolloutInvalid("a stage must last 0 seconds or more and need 1 job or more")
    if not 0 <= plan.error_rate_max <= 1 or not plan.p95_ratio_max > 0:
        raise RolloutInvalid("the error rate must be between 0 and 1, and the p95 ratio above 0")


def _locked(rollout: Rollout) -> Rollout:
    """Locks the model, as everyone who changes routes does, and reads the rollout. Raises `RolloutEnded`."""
    Model.objects.select_for_update().get(pk=rollout.model_id)
    found = Rollout.objects.select_related("model", "stable__model", "candidate__model").get(pk=rollout.pk)
    if found.state != Rollout.State.RUNNING:
        raise RolloutEnded
    return found


def _route(rollout: Rollout) -> None:
    share = rollout.stages[rollout.stage]
    routes_replace(rollout.model, {rollout.candidate: share, rollout.stable: 100 - share})


def _end(rollout: Rollout, state: Rollout.State, verdict: str, now: datetime) -> Rollout:
    rollout.state, rollout.verdict, rollout.ended_at = state, verdict[:300], now
    rollout.save(update_fields=["state", "verdict", "ended_at"])
    winner = rollout.candidate if state == Rollout.State.PROMOTED else rollout.stable
    routes_replace(rollout.model, {winner: 100})
    return rollout
