"""The clock."""

from datetime import UTC, datetime


def now() -> datetime:
    """Read the clock. Only views, tasks and commands do; verbs get `now` as an argument."""
    return datetime.now(UTC)
