"""Guards the memory and connections of Redis, which all pools share, against the workers of one; a scheduler's thread.

A dedicated pool's login can write within its namespace and open connections until Redis has no more of either. Within
about a second the guard switches that login off, closes its connections and deletes its keys, which are messages only:
leases bring its jobs back. It lets the login in again after a minute, and after twice as long if it goes on like that.

Why not a Redis for each dedicated pool: it would give each its own processor time too. But then a pool needs a server
that somebody sizes, patches and watches, on one machine and in Kubernetes, and the control plane needs a connection
and a waiting read for each. What the guard can't do is in `docs/security.md`.

The guard keeps one connection open, since a flood of connections leaves no room for another.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, cast

import redis
import structlog
from django.conf import settings

from core.redis_client import CLIENT_NAME
from easel.catalog.models import Pool, PoolFault
from easel.catalog.pool_faults import pool_let_in, pool_shut_out, pools_to_let_in
from easel.catalog.redis_users import redis_user_set
from easel.processes.loop import run_turns

log = structlog.get_logger()
PAUSE_SECONDS = 1.0
POOL_BYTES_MAX = 64 << 20  # of keys and of connections' buffers: a stream of 10,000 beats of busy workers has 30 MB
POOL_CONNECTIONS_MAX = 500  # a worker has three
HIDDEN_BYTES_MIN = 4 << 20  # of connections of the pool that is shut out if Redis is full for no other reason
COMMAND_BYTES = 1000  # a guess at a command that waits for EXEC
STRANGERS_MAX = 100  # connections that have not logged in
STRANGERS_SECONDS = 5  # older ones are closed if there are more
STRANGER_BYTES_MAX = 1 << 20  # of one: it sends the first words of a login, and reads one answer
SCAN_SECONDS = 60.0  # keys are counted at least this often while Redis has more than POOL_BYTES_MAX
SCAN_COUNT = 2000  # keys that one script looks at, in about 5 ms
FULL = 0.8  # of maxmemory: then they are counted in every turn
CROWDED = 0.5  # of maxclients
SAMPLES, ALL = 5, 0  # members of a key that are looked at

# A step through all keys: the cursor, then the name and the bytes of each namespace of ARGV[4] and so on, by ARGV[3]
# members of each key. It is a script, since a pool can make hundreds of thousands of keys, which would take the client
# half a minute.
_SIZES = """
local found = redis.call('SCAN', ARGV[1], 'COUNT', ARGV[2])
local sizes, reply = {}, {found[1]}
for i = 4, #ARGV do
    sizes[ARGV[i]] = 0
end
for _, key in ipairs(found[2]) do
    local name = string.match(key, '^[^:]*')
    if sizes[name] then
        sizes[name] = sizes[name] + (redis.call('MEMORY', 'USAGE', key, 'SAMPLES', ARGV[3]) or 0)
    end
end
for name, size in pairs(sizes) do
    if size > 0 then
        reply[#reply + 1] = name
        reply[#reply + 1] = size
    end
end
return reply
"""
# A step through all keys: deletes those that begin with ARGV[3], and returns the cursor.
_DELETE = """
local found = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[3] .. '*', 'COUNT', ARGV[2])
for _, key in ipairs(found[2]) do
    redis.call('UNLINK', key)
end
return {found[1]}
"""


def run(stop: threading.Event) -> None:
    """Watch Redis until `stop` is set."""
    guard = Guard()
    run_turns(lambda: guard.turn(now=datetime.now(UTC)), process="redis_guard", stop=stop, pause_seconds=PAUSE_SECONDS)


class Guard:
    """A guard, with what it saw in its earlier turns."""

    def __init__(self) -> None:
        self._scanned_at = -SCAN_SECONDS
        self._scanned_bytes = 0

    def turn(self, *, now: datetime) -> None:
        """Shut out the dedicated pools that take too much, and let in those whose time is over."""
        client = _client()
        pools = {pool.namespace: pool for pool in Pool.objects.exclude(tenant=None)}
        for fault in pools_to_let_in(now=now):
            redis_user_set(client, fault.pool, secret=settings.EASEL.secret_key)
            pool_let_in(fault, now=now)
        clients, info = client.client_list(), client.info()
        _close_strangers(client, clients, info)
        for namespace, (kind, detail) in self._excesses(client, pools, clients, info).items():
            _shut_out(client, pools[namespace], kind, detail, now)

    def _excesses(
        self, client: "redis.Redis", pools: Mapping[str, Pool], clients: list[dict[str, str]], info: dict[str, Any]
    ) -> dict[str, tuple[PoolFault.Kind, str]]:
        found: dict[str, tuple[PoolFault.Kind, str]] = {}
        connections, buffers, queued = Counter[str](), Counter[str](), Counter[str]()
        for each in clients:
            if (user := each.get("user", "")) in pools:
                connections[user] += 1
                buffers[user] += int(each.get("tot-mem", 0))
                queued[user] += max(0, int(each.get("multi", 0)))
        for namespace, count in connections.items():
            if count > POOL_CONNECTIONS_MAX:
                found[namespace] = PoolFault.Kind.CONNECTIONS, f"{count} connections"
        used, is_full = int(info["used_memory"]), _is_full(info)
        self._scanned_bytes = min(self._scanned_bytes, used)
        has_grown = used - self._scanned_bytes > POOL_BYTES_MAX // 4
        is_due = time.monotonic() - self._scanned_at > SCAN_SECONDS
        if used < POOL_BYTES_MAX or not (is_full or has_grown or is_due):
            return found
        self._scanned_at, self._scanned_bytes = time.monotonic(), used
        # A few large members among many small ones are not in a sample, and counting all takes longer.
        large: dict[str, int] = {}
        for samples in (SAMPLES, ALL) if is_full else (SAMPLES,):
            large = large or dict(_sizes_above(client, pools, buffers, samples))
        for namespace, size in large.items():
            found.setdefault(namespace, (PoolFault.Kind.MEMORY, f"over {size >> 20} MiB"))
        if is_full and not found:
            # Redis says nowhere what commands between MULTI and EXEC take, or the keys that a BRPOP waits for.
            hidden = Counter({name: size + COMMAND_BYTES * queued[name] for name, size in buffers.items()})
            for namespace, size in hidden.most_common(1):
                if size > HIDDEN_BYTES_MIN:
                    found[namespace] = PoolFault.Kind.MEMORY, f"{connections[namespace]} busy connections"
        return found


def _sizes_above(
    client: "redis.Redis", namespaces: Iterable[str], buffers: Counter[str], samples: int
) -> Iterator[tuple[str, int]]:
    """Yield each namespace, with its bytes, as soon as it has more than POOL_BYTES_MAX, to `buffers` of its clients."""
    sizes = Counter(buffers)
    reported: set[str] = set()

    def above(namespaces: set[str]) -> Iterator[tuple[str, int]]:
        for namespace in sorted(namespaces - reported):
            if sizes[namespace] > POOL_BYTES_MAX:
                reported.add(namespace)
                yield namespace, sizes[namespace]

    yield from above(set(sizes))
    for reply in _steps(client, _SIZES, str(samples), *namespaces):
        names = [name.decode(errors="replace") for name in reply[::2]]
        for name, size in zip(names, reply[1::2], strict=True):
            sizes[name] += size
        yield from above(set(names))


def _shut_out(client: "redis.Redis", pool: Pool, kind: PoolFault.Kind, detail: str, now: datetime) -> None:
    redis_user_set(client, pool, secret=settings.EASEL.secret_key, is_on=False)
    client.execute_command("CLIENT", "KILL", "USER", pool.namespace)  # type: ignore[no-untyped-call]
    for _ in _steps(client, _DELETE, f"{pool.namespace}:"):
        pass
    pool_shut_out(pool, kind, detail, now=now)


def _steps(client: "redis.Redis", script: str, *arguments: str) -> Iterator[list[Any]]:
    """Run a script until its cursor is at the end; yield what it returns beside the cursor."""
    cursor = b"0"
    while True:
        cursor, *reply = cast(list[Any], client.eval(script, 0, cursor, SCAN_COUNT, *arguments))
        yield reply
        if cursor == b"0":
            return


def _close_strangers(client: "redis.Redis", clients: list[dict[str, str]], info: dict[str, Any]) -> None:
    """Close connections that have not logged in, if they are many or take memory: who reaches the port can open them.

    Redis doesn't say which have not, and shows commands that it has refused them. Those that have sent no other command
    than a login have surely not. Others, such as an operator's `redis-cli`, are closed only in need.
    """
    found = [each for each in clients if each.get("user") == "default" and each.get("name") != CLIENT_NAME]
    is_crowded = len(clients) > CROWDED * int(info.get("maxclients") or 10_000)
    seconds = min(1, STRANGERS_SECONDS) if is_crowded else STRANGERS_SECONDS
    old = [each for each in found if int(each["age"]) >= seconds]
    silent = [each for each in old if each.get("cmd", "NULL").lower() in ("null", "auth", "hello")]
    closed = [crowd for crowd in (silent, old if is_crowded or _is_full(info) else []) if len(crowd) > STRANGERS_MAX]
    if _is_full(info):
        closed.append([each for each in found if int(each.get("tot-mem", 0)) > STRANGER_BYTES_MAX])
    if strangers := {each["id"] for crowd in closed for each in crowd}:
        log.error("redis_strangers_closed", count=len(strangers))
        # By the connection that is open: a pipeline would take another one, for which Redis may have no room.
        connection = cast(Any, client.connection)
        connection.send_packed_command(connection.pack_commands([("CLIENT", "KILL", "ID", each) for each in strangers]))
        for _ in strangers:
            connection.read_response()


def _is_full(info: dict[str, Any]) -> bool:
    bound = int(info.get("maxmemory") or 0)
    return bool(bound) and int(info["used_memory"]) > FULL * bound


@cache
def _client() -> "redis.Redis":
    return redis.Redis.from_url(
        settings.EASEL.redis_url,
        single_connection_client=True,
        socket_connect_timeout=2,
        socket_timeout=10,
        client_name=CLIENT_NAME,
    )
