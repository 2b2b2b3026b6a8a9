"""Signatures by the Standard Webhooks specification 1.0.0, and the encryption of their secrets."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from datetime import datetime
from functools import cache

from cryptography.fernet import Fernet

_PREFIX = "whsec_"
_SECRET_BYTES = 32


def secret_new() -> str:
    """Generate a secret: `whsec_` and 32 random bytes in base64, as receivers' libraries expect it."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def secret_seal(secret: str, *, key: str) -> bytes:
    """Encrypts a secret for storage; `key` is EASEL_SECRET_KEY."""
    return _box(key).encrypt(secret.encode())


def secret_open(sealed: bytes | memoryview, *, key: str) -> str:
    """Decrypts a stored secret. Raises `cryptography.fernet.InvalidToken` if it was encrypted with another key."""
    return _box(key).decrypt(bytes(sealed)).decode()


def signed_headers(*, message_id: str, now: datetime, body: bytes, secrets_in_use: Iterable[str]) -> dict[str, str]:
    """Return a body's signature headers: for each secret `v1,` and the HMAC-SHA256 of `id.timestamp.body` in base64."""
    timestamp = str(int(now.timestamp()))
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    signatures = (
        base64.b64encode(hmac.digest(base64.b64decode(secret.removeprefix(_PREFIX)), signed, hashlib.sha256)).decode()
        for secret in secrets_in_use
    )
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


@cache
def _box(key: str) -> Fernet:
    # A key derived for this purpose only, so that a weakness here doesn't expose EASEL_SECRET_KEY.
    return Fernet(base64.urlsafe_b64encode(hmac.digest(key.encode(), b"easel webhook secrets", hashlib.sha256)))
