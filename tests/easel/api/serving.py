"""The application behind a real server, for clients with sockets of their own."""

import asyncio
import contextlib

import uvicorn

from core.threads import in_thread
from easel.api.server import server_config
from easel.asgi import application


@contextlib.asynccontextmanager
async def served(**options):
    """The application behind a server of its own."""
    server = uvicorn.Server(server_config(application, port=0, **{"timeout_graceful_shutdown": None, **options}))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server
    finally:
        server.should_exit = True
        await serving


def port_of(server):
    return server.servers[0].sockets[0].getsockname()[1]


async def happened(check):
    """Return once `check` is true; it runs on a thread."""
    async with asyncio.timeout(60):
        while not await in_thread(check):
            await asyncio.sleep(0.01)
