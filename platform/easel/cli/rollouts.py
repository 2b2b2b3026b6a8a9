"""`easel rollout`: canaries."""

from easel.actions import serving
from easel.cli.action_commands import group_of
from easel.cli.tables import Rows, list_command

rollout = group_of(
    "rollout",
    "Give a new version growing shares of its model's callers.",
    (serving.start_rollout, serving.promote, serving.roll_back),
)


@list_command(rollout)
def rollout_list() -> Rows:
    """List rollouts, the latest first, with the guardrail's latest verdict."""
    from easel.serving.models import Rollout

    return [
        {
            "candidate": found.candidate.label,
            "stable": found.stable.label,
            "state": found.state,
            "percent": found.stages[found.stage] if found.state == Rollout.State.RUNNING else "",
            "started_at": found.started_at.isoformat(timespec="seconds"),
            "verdict": found.verdict,
        }
        for found in Rollout.objects.select_related("candidate__model", "stable__model").order_by("-started_at")[:20]
    ]
