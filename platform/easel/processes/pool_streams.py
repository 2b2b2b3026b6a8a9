"""Reads the report streams of all pools, and mends keys of pools, whatever the pools' workers wrote there.

A worker of a dedicated pool is not trusted. Every reply is therefore bounded: one entry of a stream is read at a time
if the whole stream is large. A key that has the wrong type, an error of one key, or a flood of entries concerns its
pool alone. Only a Redis that is itself unavailable raises.

While all is well a turn costs three round trips, however many pools there are: one that looks for entries of dead
consumers, one that waits for new entries, and one that reads more of those streams that had one.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

import redis
from redis.exceptions import OutOfMemoryError, ResponseError

from easel.catalog.redis_users import HELD_LOCK
from inference.contract import QUEUE, reports_key

GROUP = "completion"
ENTRIES_MAX = 32  # of one pool in one turn: applying them takes about 0.1 s, for which the other pools wait
STREAM_BYTES_MAX = 8 << 20  # a stream that has more is read one entry at a time
# Reports of an hour without a consumer, of a pool of three workers. Redis forgets the oldest of more.
STREAM_ENTRIES_MAX = 10_000
CLOCK_SLACK_MS = 3_600_000

# Keys of Celery's transport and the types that Redis must have there. Celery has a list per step of priority.
_STEPS = ("", "\x06\x163", "\x06\x166", "\x06\x169")
_TYPES = {
    **{f"{QUEUE}{step}": "list" for step in _STEPS},
    f"_kombu.binding.{QUEUE}": "set",
    f"_kombu.binding_permanent.{QUEUE}": "set",
    # Workers of Easel 0.2:
    "unacked": "hash",
    "unacked_index": "zset",
    HELD_LOCK: "string",
}

# Makes the stream KEYS[1] and its group ARGV[1], anew if it can't be used, and deletes those of the other keys whose
# types are not ARGV[4] and so on. Returns what was wrong. The last id of a stream can lie in the future (after ARGV[3],
# in ms): then no worker could add an entry. The last of the keys is HELD_LOCK.
_MEND = """
local wrong = {}
for i = 2, #KEYS do
    local kind = redis.call('TYPE', KEYS[i]).ok
    if kind ~= 'none' and kind ~= ARGV[i + 2] then
        redis.call('UNLINK', KEYS[i])
        wrong[#wrong + 1] = KEYS[i] .. ' was a ' .. kind
    end
end
local key, group = KEYS[1], ARGV[1]
local kind = redis.call('TYPE', key).ok
if kind ~= 'none' and kind ~= 'stream' then
    redis.call('UNLINK', key)
    wrong[#wrong + 1] = key .. ' was a ' .. kind
elseif kind == 'stream' then
    local stream = redis.call('XINFO', 'STREAM', key)
    for i = 1, #stream, 2 do
        if stream[i] == 'last-generated-id' and tonumber(string.match(stream[i + 1], '^%d+')) > tonumber(ARGV[3]) then
            redis.call('UNLINK', key)
            wrong[#wrong + 1] = key .. ' ended in the future'
        end
    end
    if redis.call('XLEN', key) > tonumber(ARGV[2]) then
        redis.call('XTRIM', key, 'MAXLEN', ARGV[2])
        wrong[#wrong + 1] = key .. ' was too long'
    end
end
redis.pcall('SET', KEYS[#KEYS], 'platform', 'NX')
local made = redis.pcall('XGROUP', 'CREATE', key, group, '0', 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then
    return made
end
return wrong
"""
# Reads up to ARGV[3] new entries of a stream, or one if the stream has more than ARGV[4] bytes.
_READ = """
local count = ARGV[3]
if (redis.call('MEMORY', 'USAGE', KEYS[1], 'SAMPLES', 0) or 0) > tonumber(ARGV[4]) then
    count = 1
end
return redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', count, 'STREAMS', KEYS[1], '>')
"""


class Entry(NamedTuple):
    """An entry of a stream; `report` is None if it has no report or was deleted meanwhile."""

    namespace: str
    id: bytes
    report: bytes | None


class Found(NamedTuple):
    """The entries that a look at several streams found, and the namespaces that could not be looked at."""

    entries: list[Entry]
    broken: set[str]


def mend(client: "redis.Redis", namespaces: Iterable[str], *, now_ms: int) -> dict[str, list[str]]:
    """Make each pool's stream and group if needed, and delete keys that can't be used; return what was wrong.

    A Redis that has no room for a new stream is no error: what can be read is read, and the next look makes it.
    """
    names = list(namespaces)
    arguments: tuple[str | int, ...] = (GROUP, STREAM_ENTRIES_MAX, now_ms + CLOCK_SLACK_MS, *_TYPES.values())
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            keys = (reports_key(name), *(f"{name}:{key}" for key in _TYPES))
            pipe.eval(_MEND, len(keys), *keys, *arguments)
        replies = pipe.execute(raise_on_error=False)
    for reply in replies:
        if isinstance(reply, Exception) and not isinstance(reply, OutOfMemoryError):
            raise reply
    return {
        name: [ascii(text.decode(errors="replace")).strip("'") for text in reply]
        for name, reply in zip(names, replies, strict=True)
        if isinstance(reply, list) and reply
    }


def entries_taken(client: "redis.Redis", namespaces: Iterable[str], consumer: str, *, idle_ms: int) -> Found:
    """Take over entries that a consumer read `idle_ms` ago and did not acknowledge."""
    names = list(namespaces)
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.xautoclaim(reports_key(name), GROUP, consumer, idle_ms, count=ENTRIES_MAX, justid=True)
        return _read_again(client, names, pipe.execute(raise_on_error=False))


def entries_left(client: "redis.Redis", namespaces: Iterable[str], consumer: str) -> Found:
    """Read again what this consumer read before and did not acknowledge."""
    names = list(namespaces)
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.xpending_range(reports_key(name), GROUP, "-", "+", ENTRIES_MAX, consumer)
        replies = pipe.execute(raise_on_error=False)
    ids = [reply if isinstance(reply, Exception) else [row["message_id"] for row in reply] for reply in replies]
    return _read_again(client, names, ids)


def _read_again(client: "redis.Redis", names: list[str], ids_of: list[Any]) -> Found:
    found = Found([], set())
    for name, ids in zip(names, ids_of, strict=True):
        if isinstance(ids, Exception):
            _only_of_a_key(ids)
            found.broken.add(name)
            continue
        for entry_id in ids:  # one at a time, since each may be large
            rows = cast(Any, client.xrange(reports_key(name), entry_id, entry_id))
            fields = rows[0][1] if rows else {}
            found.entries.append(Entry(name, entry_id, fields.get(b"report")))
    return found


def entries_new(client: "redis.Redis", namespaces: Iterable[str], consumer: str, *, wait_ms: int) -> Found:
    """Read new entries, at most ENTRIES_MAX of each stream and one more. Wait up to `wait_ms` for the first."""
    names = {reports_key(name): name for name in namespaces}
    if not names:
        return Found([], set())
    found = Found([], set())
    since: Any = dict.fromkeys(names, ">")
    try:
        read = cast(Any, client.xreadgroup(GROUP, consumer, since, count=1, block=wait_ms or None))
    except ResponseError as error:  # of one stream, and nothing was read
        _only_of_a_key(error)
        more = list(names)
    else:
        more = []
        for key, rows in read.items() if isinstance(read, dict) else read or ():
            more.append(key.decode())
            for entry_id, fields in rows[0] if rows and isinstance(rows[0], list) else rows:
                found.entries.append(Entry(names[more[-1]], entry_id, fields.get(b"report")))
    with client.pipeline(transaction=False) as pipe:
        for key in more:
            pipe.eval(_READ, 1, key, GROUP, consumer, ENTRIES_MAX, STREAM_BYTES_MAX)
        replies = pipe.execute(raise_on_error=False)
    for key, reply in zip(more, replies, strict=True):
        if isinstance(reply, Exception):
            _only_of_a_key(reply)
            found.broken.add(names[key])
            continue
        for _, rows in reply or ():
            for entry_id, flat in rows:
                found.entries.append(Entry(names[key], entry_id, _fields(flat).get(b"report")))
    return found


def acknowledge(client: "redis.Redis", entry: Entry) -> None:
    """Delete an entry, which was applied or refused."""
    key = reports_key(entry.namespace)
    with client.pipeline(transaction=False) as pipe:
        pipe.xack(key, GROUP, entry.id)
        pipe.xdel(key, entry.id)
        for reply in pipe.execute(raise_on_error=False):
            if isinstance(reply, Exception):
                _only_of_a_key(reply)  # replaced meanwhile: the next look mends it


def _fields(flat: list[bytes]) -> Mapping[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _only_of_a_key(error: Exception) -> None:
    """Raise an error that is not about one key, such as a lost connection. `mend` raises what is taken for one here."""
    if type(error) is not ResponseError:
        raise error
