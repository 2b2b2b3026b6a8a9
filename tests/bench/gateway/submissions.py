"""What an admitted job costs: a closed loop of clients against the API, and against the framework alone."""

import asyncio
import contextlib
import json
import math
import os
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
    "framework": [
        *(sys.executable, "-m", "uvicorn", "tests.bench.gateway.ceiling:application"),
        *("--lifespan", "off", "--no-access-log", "--log-level", "error", "--port"),
    ],
}


@dataclass(slots=True)
class Server:
    """An HTTP server in a process of its own."""

    port: int
    process: psutil.Process

    @property
    def cpu_seconds(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system


@contextmanager
def serving(name: str, env: Mapping[str, str] | None = None) -> Iterator[Server]:
    port = free_port()
    process = subprocess.Popen(
        [*SERVERS[name], str(port)], stdout=subprocess.DEVNULL, env={**os.environ, **(env or {})}
    )
    try:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            try:
                httpx.get(f"http://127.0.0.1:{port}/", timeout=5)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        if process.poll() is not None:
            raise RuntimeError(f"{name} did not start")
        yield Server(port, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait()


def round_trips(requests: Sequence[bytes]) -> tuple[float, float]:
    """(to PostgreSQL, to Redis) for each request, once connections and caches are warm."""
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
    """What clients saw, and what the server spent."""

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
    """`connections` clients, each sending its next request when the last was answered, for so long or so often."""
    before, database = server.cpu_seconds, postgres_cpu_seconds()
    begun = time.perf_counter()
    latencies = asyncio.run(_clients(server.port, requests, connections, begun + seconds, count))
    took = time.perf_counter() - begun
    return Load(latencies, took, server.cpu_seconds - before, postgres_cpu_seconds() - database)


def postgres_cpu_seconds() -> float:
    """Of the server of this run: its processes, and those that have ended."""
    pid = int((Path(os.environ["EASEL_HOME"]) / "postgres" / "postmaster.pid").read_text().split()[0])
    times = psutil.Process(pid).cpu_times()
    total: float = times.user + times.system + times.children_user + times.children_system
    for process in psutil.Process(pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:2])
    return total


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
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readuntil(b"\r\n0\r\n\r\n")  # in chunks, as both servers send it
        if not head.startswith(b"HTTP/1.1 20"):
            raise RuntimeError(f"{head.decode()}{body.decode()}")
        latencies.append(time.perf_counter() - begun)
    writer.close()
