"""The transaction of a command that only the command line has, and its audit record."""

import getpass
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from easel.cli.django_ready import django_ready


def actor_name() -> str:
    """The user that runs this command, as the audit log names it."""
    return f"command:{getpass.getuser()}"


@dataclass(frozen=True, slots=True)
class Change:
    """A command's transaction: its time, and its way into the audit log."""

    now: datetime

    def record(
        self, action: str, subject: str, *, tenant: Any = None, details: Mapping[str, Any] | None = None
    ) -> None:
        from core.audit import audit_record

        audit_record(actor=actor_name(), action=action, subject=subject, tenant=tenant, details=details, now=self.now)


@contextmanager
def committed() -> Iterator[Change]:
    """Opens one transaction on a ready Django; what fails leaves no trace."""
    with django_ready():
        from django.db import transaction

        with transaction.atomic():
            yield Change(datetime.now(UTC))
