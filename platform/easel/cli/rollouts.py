"""`easel rollout`: canaries."""

import click

from easel.actions import serving
from easel.cli.action_commands import add_commands
from easel.cli.django_ready import django_ready
from easel.cli.tables import as_json_option, print_rows


@click.group()
def rollout() -> None:
    """Give a new version growing shares of its model's callers."""


add_commands(rollout, (serving.START_ROLLOUT, serving.PROMOTE, serving.ROLL_BACK))


@rollout.command("list")
@as_json_option
def rollout_list(as_json: bool) -> None:
    """List rollouts, the latest first, with the guardrail's latest verdict."""
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
