"""The threads, memory and CPU time of one API process while clients wait for their images and nothing happens."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from tests.bench.gateway.submissions import Server


@dataclass(frozen=True, slots=True)
class Waiting:
    """`threads_more` and `kib_each` (per client) are the growth of the process; CPU is in percent of one core."""

    threads_more: int
    kib_each: float
    cpu_percent: float


def waiting(server: Server, requests: Sequence[bytes], *, clients: int, seconds: float) -> Waiting:
    """Send `clients` image requests whose jobs no worker takes, and measure the process once all of them wait."""
    threads, memory = server.process.num_threads(), server.process.memory_info().rss
    return asyncio.run(_wait(server, requests, clients, seconds, threads, memory))


async def _wait(
    server: Server, requests: Sequence[bytes], clients: int, seconds: float, threads: int, memory: int
) -> Waiting:
    turns = asyncio.Semaphore(32)  # clients arrive over time, not all at once

    async def come(number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with turns:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(requests[number % len(requests)])
            await writer.drain()
            return reader, writer

    came = await asyncio.gather(*(come(number) for number in range(clients)))
    await _all_wait(server, clients)
    cpu, begun = server.cpu_seconds, time.perf_counter()
    await asyncio.sleep(seconds)
    found = Waiting(
        threads_more=server.process.num_threads() - threads,
        kib_each=(server.process.memory_info().rss - memory) / clients / 1024,
        cpu_percent=100 * (server.cpu_seconds - cpu) / (time.perf_counter() - begun),
    )
    if left := sum(reader.at_eof() for reader, _ in came):
        raise RuntimeError(f"{left} of {clients} clients do not wait any more")
    for _, writer in came:
        writer.close()
    return found


async def _all_wait(server: Server, clients: int) -> None:
    async with httpx.AsyncClient(timeout=60) as client:
        for _ in range(600):
            answer = await client.get(f"http://127.0.0.1:{server.port}/metrics")
            if f"easel_waiting_clients {clients}.0" in answer.text:
                return
            await asyncio.sleep(1)
    raise RuntimeError("not all clients were admitted within ten minutes")
