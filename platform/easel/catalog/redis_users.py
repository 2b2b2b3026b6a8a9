"""Redis users of pools: each pool's workers log in as a user that can use the pool's namespace and nothing else."""

import base64
import hashlib
import hmac
import re
from urllib.parse import quote, urlsplit, urlunsplit

import redis

from easel.catalog.errors import NamespaceUnsafe
from easel.catalog.models import Pool


def redis_user_rules(namespace: str) -> list[str]:
    """Return the rules of `ACL SETUSER` for a pool's workers: their own keys and channels, no server commands.

    Every key of Celery's transport and of `inference.contract` begins with the namespace. Raises `NamespaceUnsafe`.
    """
    if not re.fullmatch("[a-z0-9-]+", namespace):
        raise NamespaceUnsafe(f"the namespace {namespace!r} may contain only lower-case letters, digits and hyphens")
    return [
        *("resetkeys", "resetchannels", f"~{namespace}:*", f"&{namespace}:*"),
        *("nocommands", "+@all", "-@admin", "-@dangerous"),
        # Kombu runs scripts, whose keys Redis checks as well; SCRIPT KILL and FLUSH would disturb other workers.
        *("-@scripting", "+eval", "+evalsha", "+script|load"),
        # These commands name no key, so that no rule on keys applies: they would show other pools' keys.
        *("-scan", "-randomkey", "-dbsize", "-pubsub"),
    ]


def redis_user_set(client: "redis.Redis", pool: Pool, *, secret: str) -> None:
    """Create the pool's user, or reset it to these rules; idempotent."""
    password = redis_password(pool.namespace, secret=secret)
    rules = ["on", "resetpass", f">{password}", *redis_user_rules(pool.namespace)]
    client.execute_command("ACL", "SETUSER", pool.namespace, *rules)  # type: ignore[no-untyped-call]


def redis_password(namespace: str, *, secret: str) -> str:
    """Return the user's password, derived from the platform's secret key: processes compute it, and none stores it."""
    digest = hmac.digest(secret.encode(), b"easel redis user\0" + namespace.encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def worker_redis_url(redis_url: str, pool: Pool, *, secret: str) -> str:
    """Return the platform's Redis URL with the login of the pool's user."""
    parts = urlsplit(redis_url)
    address = parts.netloc.rpartition("@")[2]
    password = redis_password(pool.namespace, secret=secret)
    return urlunsplit(parts._replace(netloc=f"{quote(pool.namespace)}:{quote(password)}@{address}"))
