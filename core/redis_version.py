"""Which servers have the fixes of known faults that let a client who is logged in run code on the server.

The floors are the releases of May 2026: CVE-2026-23479 (a client that waits), CVE-2026-25243 (`RESTORE`) and
CVE-2026-23631 (scripts) of Redis and Valkey. They have the fixes of October 2025 too (CVE-2025-49844, scripts), which
the floor of Redis 6.2 is for. Users of pools may run neither scripts nor `RESTORE` (`easel.catalog.redis_users`): those
faults don't open an older server to them. They may wait (`BRPOP`), and CVE-2026-23479 needs a waiting client that the
server evicts, which it does only where `maxmemory-clients` is set: it must not be, on an older server.
"""

from collections.abc import Mapping
from typing import Any

# By the line of releases. A line that is not here and is older than the newest one gets no more fixes.
REDIS = {(6, 2): 20, (7, 2): 14, (7, 4): 9, (8, 2): 6, (8, 4): 3, (8, 6): 3}
VALKEY = {(7, 2): 13, (8, 0): 9, (8, 1): 7, (9, 0): 4}


def redis_unpatched(server: Mapping[str, Any]) -> str:
    """Say what is wrong with a server's version, from its `INFO server`; empty if nothing is."""
    is_valkey = "valkey_version" in server
    name, floors = ("Valkey", VALKEY) if is_valkey else ("Redis", REDIS)
    text = str(server["valkey_version" if is_valkey else "redis_version"])
    numbers = [int(part) if part.isdigit() else 0 for part in text.split(".")[:3]]
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    floor = floors.get((major, minor))
    if floor is None:
        newest = max(floors)
        fixed = (major, minor) > newest
        advice = "" if fixed else f"no release of {major}.{minor} has the fixes: use {newest[0]}.{newest[1]} or newer"
    else:
        advice = "" if patch >= floor else f"use {major}.{minor}.{floor} or newer"
    return advice and f"{name} {text} has known faults that let a client run code on the server; {advice}"
