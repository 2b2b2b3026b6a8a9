"""The transaction of a command that only the command line has, and its audit record."""

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from easel.cli.django_ready import django_ready


def actor_name() -> str:
    """The user that runs this command, as the audit log names it."""
    return f"command:{getpass.getuser()}"


def command_record(action: str, subject: str, *, now: datetime, **about: Any) -> None:
    """Records in the audit log what the user of this command did."""
    from core.audit import audit_record

    audit_record(actor=actor_name(), action=action, subject=subject, now=now, **about)


@contextmanager
def committed() -> Iterator[datetime]:
    """Opens one transaction on a ready Django and gives its time; what fails leaves no trace."""
    with django_ready():
        from django.db import transaction

        with transaction.atomic():
            yield datetime.now(UTC)
