"""Writes down who did what: every act of an operator, by the portal or the command line, and of the platform itself."""

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from core.models import AuditEvent
from tenants.models import Tenant


def audit_record(
    *,
    actor: str,
    action: str,
    subject: str,
    now: datetime,
    tenant: Tenant | None = None,
    details: Mapping[str, Any] | None = None,
) -> AuditEvent:
    """Adds an event, in the transaction of the act itself: an act that is undone leaves no record of having been done.

    `actor` is `operator:<username>`, `command:<user>`, `key:<key_id>` or `platform`; `action` is `<noun>.<verb>`.
    """
    return AuditEvent.objects.create(
        id=uuid.uuid4(),
        recorded_at=now,
        actor=actor[:200],
        action=action,
        tenant=tenant,
        subject=subject[:200],
        details=dict(details or {}),
    )
