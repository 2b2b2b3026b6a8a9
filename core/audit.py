"""Audit log: records each action of an operator, a key or the platform itself."""

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db.models import Model

from core.models import AuditEvent


def audit_record(
    *,
    actor: str,
    action: str,
    subject: str,
    now: datetime,
    tenant: Model | None = None,
    details: Mapping[str, Any] | None = None,
) -> AuditEvent:
    """Add an event in the transaction of the action, so that an action that is rolled back leaves no event.

    `actor` is `operator:<username>`, `command:<user>`, `key:<key_id>` or `platform`; `action` is `<noun>.<verb>`.
    """
    return AuditEvent.objects.create(
        id=uuid.uuid4(),
        recorded_at=now,
        actor=actor[:200],
        action=action,
        tenant_id=tenant.pk if tenant else None,
        subject=subject[:200],
        details=dict(details or {}),
    )
