"""What every command that changes something does: one transaction, its time, and a record of who did it."""

import getpass
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from easel.cli.django_ready import django_ready


def actor_name() -> str:
    """Who runs this command, as the audit log says it."""
    return f"command:{getpass.getuser()}"


@dataclass(frozen=True, slots=True)
class Act:
    """A command's transaction: its time, and its way into the audit log."""

    now: datetime

    def record(
        self, action: str, subject: str, *, tenant: Any = None, details: Mapping[str, Any] | None = None
    ) -> None:
        from core.audit import audit_record

        audit_record(actor=actor_name(), action=action, subject=subject, tenant=tenant, details=details, now=self.now)


@contextmanager
def committed() -> Iterator[Act]:
    """One transaction on a ready Django; what fails leaves no trace."""
    with django_ready():
        from django.db import transaction

        with transaction.atomic():
            yield Act(datetime.now(UTC))
