"""Rollouts: a candidate version takes over from the stable one by stages, or gives everything back.

What a stage's verdict is made of is measured in `easel.serving.guardrail`; here are the moves.
"""

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import Q

from easel.catalog.models import Model, ModelVersion
from easel.serving.errors import (
    RolloutEnded,
    RolloutInvalid,
    RolloutNotFound,
    RolloutRunning,
)
from easel.serving.models import Rollout, Route
from easel.serving.routing import routes_replace


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPlan:
    """Percents of the candidate, stage by stage up to 100, and what each stage must show before the next."""

    stages: Sequence[int] = (5, 25, 50, 100)
    stage_seconds: int = 600
    jobs_min: int = 20
    error_rate_max: float = 0.05
    p95_ratio_max: float = 1.5


@transaction.atomic
def rollout_start(*, candidate: ModelVersion, plan: RolloutPlan, now: datetime) -> Rollout:
    """Gives the candidate its first share of its model's callers.

    Raises `RolloutInvalid` for a plan that can't be, and where the model isn't served by one other version alone;
    `RolloutRunning`.
    """
    _check(plan)
    model = Model.objects.select_for_update().get(pk=candidate.model_id)
    if Rollout.objects.filter(model=model, state=Rollout.State.RUNNING).exists():
        raise RolloutRunning
    routes = list(Route.objects.filter(model=model).select_related("version"))
    if len(routes) != 1:
        raise RolloutInvalid(f"{model.name} is shared out between {len(routes)} versions: route it to one first")
    stable = routes[0].version
    if stable == candidate:
        raise RolloutInvalid(f"{candidate.label} serves {model.name} already")
    if candidate.retired_at is not None:
        raise RolloutInvalid(f"{candidate.label} is retired")
    rollout = Rollout.objects.create(
        id=uuid.uuid4(),
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
    """The next stage; after the last one the candidate is promoted. Raises `RolloutEnded`.

    `rollout` says which stage was judged: one that has moved on meanwhile stays where it is.
    """
    judged, rollout = rollout.stage, _locked(rollout)
    if rollout.stage != judged:
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
    """The candidate serves all from now on. Raises `RolloutEnded`."""
    return _end(_locked(rollout), Rollout.State.PROMOTED, verdict, now)


@transaction.atomic
def rollout_roll_back(rollout: Rollout, *, verdict: str, now: datetime) -> Rollout:
    """The stable version serves all again; `verdict` says why. Raises `RolloutEnded`."""
    return _end(_locked(rollout), Rollout.State.ROLLED_BACK, verdict, now)


def rollouts_page(*, model_name: str | None, limit: int, after: uuid.UUID | None) -> tuple[list[Rollout], bool]:
    """Of all models or of one, the newest first, those after the one named `after`; and whether there are more.

    Raises `RolloutNotFound`.
    """
    rows = Rollout.objects.select_related("model", "stable", "candidate").order_by("-started_at", "-id")
    if model_name is not None:
        rows = rows.filter(model__name=model_name)
    if after is not None:
        last = Rollout.objects.filter(pk=after).first()
        if last is None:
            raise RolloutNotFound
        rows = rows.filter(Q(started_at__lt=last.started_at) | Q(started_at=last.started_at, id__lt=last.id))
    found = list(rows[: limit + 1])
    return found[:limit], len(found) > limit


def _check(plan: RolloutPlan) -> None:
    stages = list(plan.stages)
    if not stages or stages != sorted(set(stages)) or stages[0] < 1 or stages[-1] != 100:
        raise RolloutInvalid(f"stages are growing percents from 1 up to 100, as in 5,25,50,100: {stages}")
    if plan.stage_seconds < 0 or plan.jobs_min < 1:
        raise RolloutInvalid("a stage lasts 0 seconds or more, and needs 1 job or more")
    if not 0 <= plan.error_rate_max <= 1 or not plan.p95_ratio_max > 0:
        raise RolloutInvalid("the error rate is 0 to 1, and the ratio of the p95 above 0")


def _locked(rollout: Rollout) -> Rollout:
    """The model first, as everybody who changes routes."""
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
