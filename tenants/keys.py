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
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q, QuerySet

from core.clock import is_keepable
from core.revision import cached_by_revision
from tenants.addresses import NETWORKS_MAX, is_within, network_of
from tenants.errors import AddressNotAllowed, InvalidApiKey, KeyExpired, KeyLimitsInvalid, ScopeMissing, TenantSuspended
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
    expires_at: datetime | None = None,
    addresses: Sequence[str] = (),
    rotated_from: ApiKey | None = None,
) -> tuple[ApiKey, str]:
    """Create a key; return it with its secret text, which is not stored and can't be shown again.

    Raises `KeyLimitsInvalid`.
    """
    _expiry_check(expires_at, now=now)
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
        expires_at=expires_at,
        addresses=_networks(addresses),
        first_key_id=rotated_from.family_id if rotated_from else None,
        created_at=now,
    )
    return key, body + _check(body)


def key_authenticate(text: str, *, pepper: str, now: datetime, address: str | None = None) -> ApiKey:
    """Return the live key of this text, with its tenant and project; `address` is its caller's.

    Raises `InvalidApiKey` for a malformed, unknown, wrong or revoked key, without saying which, and what
    `key_check` raises.
    """
    shape = _SHAPE.fullmatch(text)
    if not shape or _check(text[: -len(shape[3])]) != shape[3]:
        raise InvalidApiKey
    key = key_find(shape[1])
    # Also hashed for an unknown key, so that the response time doesn't reveal if the key exists.
    matches = hmac.compare_digest(_hash(shape[2], pepper), bytes(key.secret_hash) if key else b"")
    if key is None or not matches:
        raise InvalidApiKey
    key_check(key, now=now, address=address)
    return key


def key_check(key: ApiKey | None, *, now: datetime, address: str | None = None, scopes: Collection[str] = ()) -> None:
    """Check that a key is live, may be used from the caller's address, and has one of the scopes if any are named.

    Work that has no caller, such as a line of a batch, has no address. Raises `InvalidApiKey`, `KeyExpired`,
    `TenantSuspended`, `AddressNotAllowed`, `ScopeMissing`.
    """
    if key is None or key.revoked_at is not None:
        raise InvalidApiKey
    if key.expires_at is not None and key.expires_at <= now:
        raise KeyExpired
    if key.tenant.suspended_at is not None:
        raise TenantSuspended
    if address is not None and not is_within(address, key.addresses):
        raise AddressNotAllowed
    scope_check(key, scopes)


def scope_check(key: ApiKey, scopes: Collection[str]) -> None:
    """Raise `ScopeMissing` unless the key has one of the scopes, or none are named."""
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
    """Issue a key with the same rights, expiry, addresses and limits, its successor, and revoke this one.

    Its limits become its successor's, which goes on with what they have counted: jobs of this key that are being
    admitted, run or end now count there too. Raises `InvalidApiKey` for a revoked key, `KeyLimitsInvalid` for one that
    has expired.
    """
    if not key_revoke(key_id=key.key_id, now=now):
        raise InvalidApiKey("this key is revoked already: issue a new one")
    rights: dict[str, Any] = {
        **{name: getattr(key, name) for name in ("scopes", "is_lenient", "expires_at", "addresses")},
        "rotated_from": key,
    }
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


def key_set_access(
    *, key: ApiKey, scopes: Collection[str], expires_at: datetime | None, addresses: Sequence[str], now: datetime
) -> bool:
    """Set what a key may do, until when, and from where; True if that changed something. Raises `KeyLimitsInvalid`.

    Requests that are being answered meanwhile end if they are no longer allowed.
    """
    if not scopes:
        raise KeyLimitsInvalid("a key needs a scope: revoke it instead", param="scopes")
    if expires_at != key.expires_at:
        _expiry_check(expires_at, now=now)
    wanted = {"scopes": sorted(set(scopes)), "expires_at": expires_at, "addresses": _networks(addresses)}
    if wanted == {name: getattr(key, name) for name in wanted}:
        return False
    return ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(**wanted) == 1


def _expiry_check(expires_at: datetime | None, *, now: datetime) -> None:
    if expires_at is not None and expires_at <= now:
        raise KeyLimitsInvalid(f"the key would expire at {expires_at.isoformat()}, which is past", param="expires_at")
    if expires_at is not None and not is_keepable(expires_at):
        raise KeyLimitsInvalid("a key expires before the year 9999, or never", param="expires_at")


def _networks(texts: Sequence[str]) -> list[str]:
    try:
        found = list(dict.fromkeys(network_of(text) for text in texts))
    except ValueError as error:
        raise KeyLimitsInvalid(f"{error}: write 10.1.0.0/16, 2001:db8::/32 or an address", param="addresses") from error
    if len(found) > NETWORKS_MAX:
        raise KeyLimitsInvalid(f"a key may be bound to {NETWORKS_MAX} networks, not {len(found)}", param="addresses")
    return found


@cached_by_revision
def key_find(key_id: str) -> ApiKey | None:
    """Return a key by its public part, live or not, with its tenant and project."""
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
