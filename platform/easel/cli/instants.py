"""Moments as commands that only read take them."""

from datetime import UTC, datetime
from typing import Any

import click


class InstantParam(click.ParamType[datetime]):
    """A moment of ISO 8601; without an offset, in UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a time, as 2027-01-01 or 2027-01-01T00:00:00Z", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
