"""The phases of an attempt, as its worker measured them, and the instants at which it reached them."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from easel.jobs.models import Attempt
from inference.contract import PHASES


def phases_read(reported: Any) -> dict[str, float] | None:
    """Return the known phases of a report that have a possible value; None if there is none.

    A faulty worker must not stop its own reports, so what it can't have measured is left out.
    """
    if not isinstance(reported, Mapping):
        return None
    found = {phase: reported[phase] for phase in PHASES if phase in reported}
    return {phase: float(value) for phase, value in found.items() if _is_possible(value)} or None


def phase_instants(attempt: Attempt) -> dict[str, datetime]:
    """Return when the attempt began and reached each of its phases; nothing if no worker began it.

    The control plane knows when it was told of the begin and of the end, each a little late. So the attempt began at
    the earlier of the begin that it was told of and the end less the seconds that the attempt took.
    """
    if attempt.started_at is None:
        return {}
    phases: dict[str, float] = attempt.phases or {}
    began_at = attempt.started_at
    if attempt.finished_at is not None and attempt.state != Attempt.State.LOST:
        took = timedelta(seconds=max(phases.values(), default=0.0))
        began_at = max(attempt.dispatched_at, min(began_at, attempt.finished_at - took))
    found, last = {"began": began_at}, began_at
    for phase in PHASES:
        if phase in phases:
            now = began_at + timedelta(seconds=phases[phase])
            found[phase] = last = max(last, min(now, attempt.finished_at or now))
    return found


def _is_possible(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value < 10**7
