"""`easel rollout`: canaries."""

from typing import Any

import click

from core.errors import DomainError
from easel.cli.committed import committed
from easel.cli.django_ready import django_ready
from easel.cli.tables import as_json_option, print_rows


class Stages(click.ParamType[tuple[int, ...]]):
    """Percents separated by commas."""

    name = "stages"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(stage) for stage in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of percents, as 5,25,50,100", param, ctx)


class RolloutNotFound(DomainError):
    """No rollout of this model is running: `easel rollout list` shows them."""

    code, http_status = "rollout_not_found", 404


@click.group()
def rollout() -> None:
    """Give a new version growing shares of its model's callers."""


@rollout.command("start")
@click.argument("candidate", metavar="MODEL@VERSION")
@click.option("--stages", type=Stages(), default="5,25,50,100", show_default=True, help="The candidate's percents.")
@click.option("--stage-seconds", type=click.IntRange(0), default=600, show_default=True, help="A stage lasts so long.")
@click.option("--jobs-min", type=click.IntRange(1), default=20, show_default=True, help="Jobs that a verdict needs.")
@click.option("--error-rate-max", type=float, default=0.05, show_default=True, help="More failures roll back.")
@click.option("--p95-ratio-max", type=float, default=1.5, show_default=True, help="Slower than the stable: roll back.")
def rollout_start(candidate: str, **plan: Any) -> None:
    """Start a canary; it goes on by itself while it is healthy, and rolls back by itself when it is not."""
    with committed() as act:
        from easel.cli.models import version_named
        from easel.serving import rollouts

        started = rollouts.rollout_start(
            candidate=version_named(candidate), plan=rollouts.RolloutPlan(**plan), now=act.now
        )
        act.record("rollout.start", started.candidate.label, details=plan)
    click.echo(f"{started.candidate.label} serves {started.stages[0]} % of {started.model.name}")


@rollout.command("list")
@as_json_option
def rollout_list(as_json: bool) -> None:
    """List rollouts, the latest first, with what the guardrail says."""
    with django_ready():
        from easel.serving.models import Rollout

        rows = [
            {
                "candidate": found.candidate.label,
                "stable": found.stable.label,
                "state": found.state,
                "percent": found.stages[found.stage] if found.state == Rollout.State.RUNNING else "",
                "started_at": found.started_at.isoformat(timespec="seconds"),
                "verdict": found.verdict,
            }
            for found in Rollout.objects.select_related("candidate__model", "stable__model").order_by("-started_at")[
                :20
            ]
        ]
    print_rows(rows, as_json)


@rollout.command("promote")
@click.argument("model_name", metavar="MODEL")
def rollout_promote(model_name: str) -> None:
    """Let the candidate serve all, without waiting for the rest of its stages."""
    _end(model_name, "promote")


@rollout.command("roll-back")
@click.argument("model_name", metavar="MODEL")
@click.option("--reason", default="by an operator", help="Kept with the rollout.")
def rollout_roll_back(model_name: str, reason: str) -> None:
    """Let the stable version serve all again."""
    _end(model_name, "roll_back", reason)


def _end(model_name: str, move: str, reason: str = "by an operator") -> None:
    with committed() as act:
        from easel.serving import rollouts
        from easel.serving.models import Rollout

        running = Rollout.objects.filter(model__name=model_name, state=Rollout.State.RUNNING)
        found = running.select_related("candidate__model").first()
        if found is None:
            raise RolloutNotFound
        ended = getattr(rollouts, f"rollout_{move}")(found, verdict=reason, now=act.now)
        act.record(f"rollout.{move}", ended.candidate.label, details={"verdict": reason})
    winner = ended.candidate if move == "promote" else ended.stable
    click.echo(f"{winner.label} serves all of {model_name}")
