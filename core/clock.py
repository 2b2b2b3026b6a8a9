"""The clock, and which moments can be kept."""

from datetime import UTC, datetime


def now() -> datetime:
    """Read the clock. Only views, tasks and commands do; verbs get `now` as an argument."""
    return datetime.now(UTC)


def is_keepable(moment: datetime) -> bool:
    """Return true for a moment that the database gives back: in every zone it has a year that Python knows."""
    try:
        return 1 < moment.astimezone(UTC).year < 9999
    except OverflowError:
        return False
