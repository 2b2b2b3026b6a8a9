"""Makes a POST repeatable by its `Idempotency-Key`: the same key with the same body has one effect."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import InterfaceError, OperationalError, transaction
from django.db.models import Model

from core.errors import IdempotencyKeyInvalid, IdempotencyKeyReused, OutcomeUnknown
from core.models import IdempotentRequest

_KEY = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,254}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The id of the created resource; `replayed` if an earlier request created it."""

    resource_id: UUID
    replayed: bool


def fingerprint(body: object) -> bytes:
    """Return the SHA-256 of the parsed body, in which spacing, the order of fields and fields of null don't matter."""
    if isinstance(body, dict):
        body = {name: value for name, value in body.items() if value is not None}
    return hashlib.sha256(json.dumps(body, sort_keys=True, default=str).encode()).digest()


def outcome_find(*, tenant: Model, endpoint: str, key: str, body: Any) -> Outcome | None:
    """Return what an earlier, committed request with this key made, if there is one.

    For work that must come before the transaction of `idempotent`, which replays too. Raises `IdempotencyKeyReused`,
    `IdempotencyKeyInvalid`.
    """
    if not _KEY.fullmatch(key):
        raise IdempotencyKeyInvalid
    request = IdempotentRequest.objects.filter(tenant_id=tenant.pk, endpoint=endpoint, key=key).first()
    return _replay(request, body) if request else None


def outcome_forget(*, tenant: Model, endpoint: str, key: str, resource_id: UUID) -> None:
    """Free a key whose resource is gone, so that the same request makes another. Idempotent."""
    IdempotentRequest.objects.filter(tenant_id=tenant.pk, endpoint=endpoint, key=key, resource_id=resource_id).delete()


def idempotent(
    *, tenant: Model, endpoint: str, key: str | None, body: Any, now: datetime, make: Callable[[], UUID]
) -> Outcome:
    """Run `make` in one transaction, at most once per (tenant, endpoint, key); without a key, every time.

    A concurrent request with the same key waits on the unique index until the first has committed, then replays. If
    `make` raises, nothing is stored, so that the client can correct a refused request and send it with the same key.
    Raises `IdempotencyKeyReused` if the key came with another body, `IdempotencyKeyInvalid`, `OutcomeUnknown`.
    """
    if key is not None and not _KEY.fullmatch(key):
        raise IdempotencyKeyInvalid
    request, created, is_committing = None, True, False
    try:
        with transaction.atomic():
            if key is not None:
                request, created = IdempotentRequest.objects.get_or_create(
                    tenant_id=tenant.pk,
                    endpoint=endpoint,
                    key=key,
                    defaults={"fingerprint": fingerprint(body), "created_at": now},
                )
            if created:
                resource_id = make()
                if request is not None:
                    request.resource_id = resource_id
                    request.save(update_fields=["resource_id"])
            is_committing = True
    except (OperationalError, InterfaceError) as error:
        if is_committing:  # the commit may have succeeded, so an answer that the request failed may be wrong
            raise OutcomeUnknown(repeatable=key is not None) from error
        raise
    if request is None or created:
        return Outcome(resource_id, replayed=False)
    return _replay(request, body)


def _replay(request: IdempotentRequest, body: Any) -> Outcome:
    if bytes(request.fingerprint) != fingerprint(body):
        raise IdempotencyKeyReused
    assert request.resource_id is not None  # written in the transaction that created the row
    return Outcome(request.resource_id, replayed=True)
