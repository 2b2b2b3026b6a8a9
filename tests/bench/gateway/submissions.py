"""The CPU time and latency of a request: a closed loop of clients against a server in processes of its own."""

import asyncio
import contextlib
import json
import math
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from easel_local.stack import free_port
from tests.round_trips import counted

SERVERS = {
    "easel": [sys.executable, "-m", "easel.cli.main", "api", "--port"],
    "unscoped": [sys.executable, "-m", "tests.bench.gateway.unscoped", "api", "--port"],
    "framework": [
        *(sys.executable, "-m", "uvicorn", "tests.bench.gateway.ceiling:application"),
        *("--lifespan", "off", "--no-access-log", "--log-level", "error", "--port"),
    ],
}


@dataclass(frozen=True, slots=True)
class Server:
    """An HTTP server in processes of its own, and the first process of the PostgreSQL that it uses, if any.

    The CPU time of descendants that run the program `not_counted` is left out.
    """

    port: int
    process: psutil.Process
    postgres: psutil.Process | None
    not_counted: str = ""

    @property
    def cpu_seconds(self) -> float:
        return _cpu_seconds(self.process, not_counted=self.not_counted)

    @property
    def database_cpu_seconds(self) -> float:
        return _cpu_seconds(self.postgres) if self.postgres else 0.0


def _cpu_seconds(process: psutil.Process, *, not_counted: str = "") -> float:
    """CPU time of a process and of all its descendants, those that have ended included."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            if not_counted and any(word.endswith(not_counted) for word in one.cmdline()):
                continue
            times = one.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def postgres_of(home: Path) -> psutil.Process:
    return psutil.Process(int((home / "postgres" / "postmaster.pid").read_text().split()[0]))


@contextmanager
def serving(name: str, env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """One of `SERVERS`, on the PostgreSQL of this run."""
    port = free_port()
    with running([*SERVERS[name], str(port)], port=port, env={**os.environ, **(env or {})}) as process:
        yield Server(port, process, postgres_of(Path(os.environ["EASEL_HOME"])))


@contextmanager
def running(
    command: Sequence[str], *, port: int, env: Mapping[str, str], log: Path | None = None, start_seconds: float = 60
) -> Iterator[psutil.Process]:
    """The process of an HTTP server, once it answers; its descendants end with it."""
    with open(log or os.devnull, "wb") as out:
        first = subprocess.Popen(command, stdout=out, stderr=out if log else None, env=env)
    process = psutil.Process(first.pid)
    try:
        deadline = time.monotonic() + start_seconds
        while not _answers(port):
            if first.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{Path(command[0]).name} did not start" + (f", see {log}" if log else ""))
            time.sleep(0.1)
        yield process
    finally:
        descendants = process.children(recursive=True) if first.poll() is None else []
        first.terminate()
        first.wait()
        for survivor in psutil.wait_procs(descendants, timeout=10)[1]:
            survivor.kill()


def _answers(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/", timeout=5)
    except httpx.TransportError:
        return False
    return True


def round_trips(requests: Sequence[bytes]) -> tuple[float, float]:
    """(round trips to PostgreSQL, to Redis) per request, once connections and caches are warm."""
    with (
        counted(os.environ["DATABASE_URL"], os.environ["REDIS_URL"]) as (env, postgres, redis),
        serving("easel", env) as server,
    ):
        load(server, requests, connections=1, count=20)
        before = postgres.trips, redis.trips
        load(server, requests, connections=1, count=20)
        return (postgres.trips - before[0]) / 20, (redis.trips - before[1]) / 20


@dataclass(slots=True)
class Load:
    """The latencies that clients saw, and the CPU time that the server and its PostgreSQL spent."""

    latencies: list[float]
    seconds: float
    cpu_seconds: float
    database_cpu_seconds: float

    def __str__(self) -> str:
        latency = f"p50 {self.percentile_ms(50):.1f}, p99 {self.percentile_ms(99):.1f} ms"
        return f"{self.per_second:.0f}/s, {latency}, {self.cpu_ms:.2f} + {self.database_cpu_ms:.2f} CPU ms"

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds

    @property
    def cpu_ms(self) -> float:
        return 1000 * self.cpu_seconds / len(self.latencies)

    @property
    def database_cpu_ms(self) -> float:
        return 1000 * self.database_cpu_seconds / len(self.latencies)

    @property
    def total_cpu_ms(self) -> float:
        return self.cpu_ms + self.database_cpu_ms

    def percentile_ms(self, percent: float) -> float:
        ranked = sorted(self.latencies)
        return 1000 * ranked[min(len(ranked) - 1, int(len(ranked) * percent / 100))]


def request(path: str, *, model: str, secret: str = "") -> bytes:
    body = json.dumps({"prompt": f"a red circle {uuid.uuid4()}", "model": model, "size": "256x256", "n": 1}).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    return f"{head}Authorization: Bearer {secret}\r\n\r\n".encode() + body


def listing(path: str, *, secret: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {secret}\r\n\r\n".encode()


def load(
    server: Server, requests: Sequence[bytes], *, connections: int, seconds: float = math.inf, count: float = math.inf
) -> Load:
    """A closed loop: each of `connections` clients sends its next request once the last is answered.

    It ends after `seconds`, or after `count` requests of each client.
    """
    before, database = server.cpu_seconds, server.database_cpu_seconds
    begun = time.perf_counter()
    latencies = asyncio.run(_clients(server.port, requests, connections, begun + seconds, count))
    took = time.perf_counter() - begun
    return Load(latencies, took, server.cpu_seconds - before, server.database_cpu_seconds - database)


async def _clients(port: int, requests: Sequence[bytes], connections: int, until: float, count: float) -> list[float]:
    latencies: list[float] = []
    await asyncio.gather(
        *(_client(port, [*requests[i:], *requests[:i]], until, count, latencies) for i in range(connections))
    )
    return latencies


async def _client(port: int, requests: Sequence[bytes], until: float, count: float, latencies: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    turn = 0
    while turn < count and time.perf_counter() < until:
        begun = time.perf_counter()
        writer.write(requests[turn % len(requests)])
        turn += 1
        head, body = await _answer(reader)
        if not head.startswith(b"HTTP/1.1 20"):
            raise RuntimeError(f"{head.decode()}{body.decode()}")
        latencies.append(time.perf_counter() - begun)
    writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """(head, body) of a response, whose body has a length or comes in chunks."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE)
    if length:
        return head, await reader.readexactly(int(length[1]))
    return head, await reader.readuntil(b"\r\n0\r\n\r\n")
