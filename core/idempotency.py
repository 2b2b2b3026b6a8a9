"""Makes a POST repeatable by its `Idempotency-Key`: same key and body, same thing, once."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import InterfaceError, OperationalError, transaction

from core.errors import IdempotencyKeyInvalid, IdempotencyKeyReused, OutcomeUnknown
from core.models import IdempotentRequest
from tenants.models import Tenant

_KEY = re.compile(r"[\x21-\x7e][\x20-\x7e]{0,254}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The id of the thing made, and whether it was made by an earlier request."""

    resource_id: UUID
    replayed: bool


@contextmanager
def _known_end(*, repeatable: bool) -> Iterator[None]:
    """A transaction; when the database goes away in its commit, nobody can say whether it was, and it is not a failure
    that a client may repeat as if nothing had happened. Raises `OutcomeUnknown`."""
    committing = False
    try:
        with transaction.atomic():
            yield
            committing = True
    except (OperationalError, InterfaceError) as error:
        if committing:
            raise OutcomeUnknown(repeatable=repeatable) from error
        raise


def fingerprint(body: object) -> bytes:
    """SHA-256 of the parsed body, so that spacing and the order of fields don't matter."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, default=str).encode()).digest()


def idempotent(
    *, tenant: Tenant, endpoint: str, key: str | None, body: Any, now: datetime, make: Callable[[], UUID]
) -> Outcome:
    """Runs `make` in one transaction, at most once per (tenant, endpoint, key); without a key, every time.

    A concurrent request with the same key waits on the unique index until the first has committed, then
    replays. A `make` that raises leaves no trace, so that a refused request can be mended and sent again.
    Raises `IdempotencyKeyReused` when the key came with another body, `IdempotencyKeyInvalid`, `OutcomeUnknown`.
    """
    if key is None:
        with _known_end(repeatable=False):
            return Outcome(make(), replayed=False)
    if not _KEY.fullmatch(key):
        raise IdempotencyKeyInvalid
    mark = fingerprint(body)
    with _known_end(repeatable=True):
        request, created = IdempotentRequest.objects.get_or_create(
            tenant=tenant, endpoint=endpoint, key=key, defaults={"fingerprint": mark, "created_at": now}
        )
        if created:
            request.resource_id = make()
            request.save(update_fields=["resource_id"])
            return Outcome(request.resource_id, replayed=False)
    if bytes(request.fingerprint) != mark:
        raise IdempotencyKeyReused
    assert request.resource_id is not None  # written in the transaction that made the row
    return Outcome(request.resource_id, replayed=True)
