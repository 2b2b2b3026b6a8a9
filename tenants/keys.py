"""Issues, authenticates and revokes API keys.

A key is `easel_sk_<key_id>_<secret><check>`: `key_id` finds the row, `secret` is 32 random characters (about 190
bits), `check` is the CRC-32 of everything before it in base 62, so that secret scanners and we can tell a real
key from a look-alike without a query.
"""

import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet

from core.revision import cached_by_revision
from tenants.errors import InvalidApiKey, ScopeMissing, TenantSuspended
from tenants.models import ApiKey, Project, Quota, Scope

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SHAPE = re.compile(r"easel_sk_([0-9A-Za-z]{12})_([0-9A-Za-z]{32})([0-9A-Za-z]{6})")


def key_issue(
    *,
    project: Project,
    pepper: str,
    now: datetime,
    scopes: Collection[str] = Scope.values,
    name: str = "",
    is_lenient: bool = False,
    rotated_from: ApiKey | None = None,
) -> tuple[ApiKey, str]:
    """Create a key; return it with its secret text, which is not stored and can't be shown again."""
    key_id, secret = _random_text(12), _random_text(32)
    body = f"easel_sk_{key_id}_{secret}"
    key = ApiKey.objects.create(
        key_id=key_id,
        secret_hash=_hash(secret, pepper),
        tenant_id=project.tenant_id,
        project=project,
        name=name,
        scopes=sorted(set(scopes)),
        is_lenient=is_lenient,
        first_key_id=rotated_from.family_id if rotated_from else None,
        created_at=now,
    )
    return key, body + _check(body)


def key_authenticate(text: str, *, pepper: str) -> ApiKey:
    """Return the live key of this text, with its tenant and project.

    Raises `InvalidApiKey` for a malformed, unknown, wrong or revoked key, without saying which, and
    `TenantSuspended`.
    """
    shape = _SHAPE.fullmatch(text)
    if not shape or _check(text[: -len(shape[3])]) != shape[3]:
        raise InvalidApiKey
    key = _key(shape[1])
    # Also hashed for an unknown key, so that the response time doesn't reveal if the key exists.
    matches = hmac.compare_digest(_hash(shape[2], pepper), bytes(key.secret_hash) if key else b"")
    if key is None or not matches:
        raise InvalidApiKey
    key_check(key)
    return key


def key_check(key: ApiKey | None, *, scopes: Collection[str] = ()) -> None:
    """Check that a key is live, and has one of the scopes if any are named.

    Raises `InvalidApiKey`, `TenantSuspended`, `ScopeMissing`.
    """
    if key is None or key.revoked_at is not None:
        raise InvalidApiKey
    if key.tenant.suspended_at is not None:
        raise TenantSuspended
    if scopes and not set(scopes) & set(key.scopes):
        needed = " or ".join(repr(str(scope)) for scope in scopes)
        raise ScopeMissing(f"this API key lacks the scope {needed}")


def keys_read(pks: Collection[UUID]) -> dict[UUID, ApiKey]:
    """Return the rows of keys as they are now, each with its tenant: for a check long after their requests began."""
    return ApiKey.objects.select_related("tenant").in_bulk(list(pks))


def key_revoke(*, key_id: str, now: datetime) -> bool:
    """Revoke a key permanently; False if there is no such live key."""
    return ApiKey.objects.filter(key_id=key_id, revoked_at=None).update(revoked_at=now) == 1


@transaction.atomic
def key_rotate(*, key: ApiKey, pepper: str, now: datetime) -> tuple[ApiKey, str]:
    """Issue a key with the same rights and limits, its successor, and revoke this one.

    Its limits become its successor's, which goes on with what they have counted: jobs of this key that are being
    admitted, run or end now count there too. Raises `InvalidApiKey` for a revoked key.
    """
    if not key_revoke(key_id=key.key_id, now=now):
        raise InvalidApiKey("this key is revoked already: issue a new one")
    rights: dict[str, Any] = {"scopes": key.scopes, "is_lenient": key.is_lenient, "rotated_from": key}
    made, secret = key_issue(project=key.project, pepper=pepper, now=now, name=key.name, **rights)
    ApiKey.objects.filter(pk=key.pk).update(successor=made)
    Quota.objects.filter(api_key=key).update(api_key=made, updated_at=now)
    return made, secret


def family_keys(family_id: UUID) -> QuerySet[ApiKey]:
    """Return the keys of a family."""
    return ApiKey.objects.filter(Q(pk=family_id) | Q(first_key=family_id))


def key_in_force(key: ApiKey) -> ApiKey | None:
    """Return the live key that a key is or was rotated to, with its tenant and project; None if that is revoked."""
    rows = ApiKey.objects.select_related("tenant", "project")
    found = rows.get(pk=key.pk)
    while found.revoked_at is not None:
        if found.successor_id is None:
            return None
        found = rows.get(pk=found.successor_id)
    return found


def key_set_leniency(*, key: ApiKey, is_lenient: bool) -> bool:
    """Let a key's requests have fields that Easel can't obey, or not; True if that changed something."""
    return ApiKey.objects.filter(pk=key.pk).exclude(is_lenient=is_lenient).update(is_lenient=is_lenient) == 1


@cached_by_revision
def _key(key_id: str) -> ApiKey | None:
    return ApiKey.objects.select_related("tenant", "project").filter(key_id=key_id).first()


def _random_text(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _hash(secret: str, pepper: str) -> bytes:
    return hmac.digest(pepper.encode(), b"easel api key\0" + secret.encode(), hashlib.sha256)


def _check(body: str) -> str:
    crc, digits = zlib.crc32(body.encode()), ""
    for _ in range(6):
        crc, digit = divmod(crc, 62)
        digits = _ALPHABET[digit] + digits
    return digits
