from datetime import UTC, datetime


def now() -> datetime:
    """The clock of the API's edge; verbs are told the time."""
    return datetime.now(UTC)
