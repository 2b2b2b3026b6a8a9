"""A pool's workers see one namespace of Redis: each pool has a user of its own there, who may touch nothing else."""

import base64
import hashlib
import hmac
import re
from urllib.parse import quote, urlsplit, urlunsplit

import redis

from easel.catalog.errors import NamespaceUnsafe
from easel.catalog.models import Pool


def redis_user_rules(namespace: str) -> list[str]:
    """The rules of `ACL SETUSER` for a pool's workers: their own keys and channels, and nothing of the server's.

    Every key of Celery's transport and of `inference.contract` begins with the namespace. Raises `NamespaceUnsafe`.
    """
    if not re.fullmatch("[a-z0-9-]+", namespace):
        raise NamespaceUnsafe(f"the namespace {namespace!r} may hold only lower-case letters, digits and hyphens")
    return [
        *("resetkeys", "resetchannels", f"~{namespace}:*", f"&{namespace}:*"),
        *("nocommands", "+@all", "-@admin", "-@dangerous"),
        # Kombu runs scripts, whose keys are checked like any others; ending another's script is no worker's business.
        *("-@scripting", "+eval", "+evalsha", "+script|load"),
        # Commands that name no key would show the neighbours' names.
        *("-scan", "-randomkey", "-dbsize", "-pubsub"),
    ]


def redis_user_set(client: "redis.Redis", pool: Pool, *, secret: str) -> None:
    """Creates the pool's user, or brings it to these rules; the same again changes nothing."""
    password = redis_password(pool.namespace, secret=secret)
    rules = ["on", "resetpass", f">{password}", *redis_user_rules(pool.namespace)]
    client.execute_command("ACL", "SETUSER", pool.namespace, *rules)  # type: ignore[no-untyped-call]


def redis_password(namespace: str, *, secret: str) -> str:
    """Derived from the platform's secret key, so that nothing is stored and every process knows it."""
    digest = hmac.digest(secret.encode(), b"easel redis user\0" + namespace.encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def worker_redis_url(redis_url: str, pool: Pool, *, secret: str) -> str:
    """Where the pool's workers find Redis: the platform's URL with the pool's user."""
    parts = urlsplit(redis_url)
    address = parts.netloc.rpartition("@")[2]
    password = redis_password(pool.namespace, secret=secret)
    return urlunsplit(parts._replace(netloc=f"{quote(pool.namespace)}:{quote(password)}@{address}"))
