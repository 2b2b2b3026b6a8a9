"""Redis users of pools: each pool's workers log in as a user that can use the pool's namespace and nothing else."""

import base64
import hashlib
import hmac
import re
from contextlib import suppress
from urllib.parse import quote, urlsplit, urlunsplit

import redis
from redis.exceptions import OutOfMemoryError

from easel.catalog.errors import NamespaceUnsafe
from easel.catalog.models import Pool

# Every command that a worker sends, of Celery's transport (as `inference.worker.process` configures it) and of
# `inference.contract`. AUTH, HELLO, QUIT and RESET are open to everyone, since they come before a login. None of these
# runs a script, deletes, waits for a foreign key, or tells more than a number about a key of any size.
# Clients also tell their names by CLIENT SETINFO, and do without where it is refused: Redis 7.0 doesn't know it.
WORKER_COMMANDS = (
    "ping",
    *("multi", "exec", "discard", "llen", "sadd"),  # the worker declares its queue
    "brpop",  # takes a task
    "xadd",  # reports
    "exists",  # looks for a request to stop an attempt
    # Workers of Easel 0.2 note each task that they have received until it is acknowledged. They also look for the notes
    # of dead workers, under a lock that they would release by a script: `set` asks for it (see `HELD_LOCK`).
    *("zadd", "zrem", "hset", "hdel", "set"),
)
# The lock of workers of Easel 0.2. The platform holds it, so that they never look for notes and never run the script.
# The dispatcher sends the tasks of dead workers again anyway.
HELD_LOCK = "unacked_mutex"


def redis_user_rules(namespace: str) -> list[str]:
    """Return the rules of `ACL SETUSER` for a pool's workers: their commands on their own keys, and nothing else.

    Every key of Celery's transport and of `inference.contract` begins with the namespace. Raises `NamespaceUnsafe`.
    """
    if namespace == "default" or not re.fullmatch("[a-z0-9-]+", namespace):  # `default` is the platform's own user
        raise NamespaceUnsafe(f"the namespace {namespace!r} may contain only lower-case letters, digits and hyphens")
    return ["resetkeys", "resetchannels", f"~{namespace}:*", "nocommands", *(f"+{name}" for name in WORKER_COMMANDS)]


def redis_user_set(client: "redis.Redis", pool: Pool, *, secret: str, is_on: bool = True) -> None:
    """Create the pool's user, or reset it to these rules; idempotent. One that is off can't log in."""
    password = redis_password(pool.namespace, secret=secret)
    if is_on:
        with suppress(OutOfMemoryError):  # then `easel.processes.pool_streams` sets it as soon as there is room
            client.set(f"{pool.namespace}:{HELD_LOCK}", "platform")
    rules = ["on" if is_on else "off", "resetpass", f">{password}", *redis_user_rules(pool.namespace)]
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
