"""Delivers what is due until it is told to stop: many at once, a few to each endpoint. Any number may run."""

import asyncio
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import psycopg
import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, connections

from easel.webhooks.delivery import Claim, ConnectionPools, deliveries_claim, delivery_record, send
from easel.webhooks.outbox import CHANNEL

log = structlog.get_logger()
T = TypeVar("T")
# Of the scheduler's share of the database's connections.
_database = ThreadPoolExecutor(4, thread_name_prefix="webhooks")
IN_HAND_MAX = 64
POLL_SECONDS = 1.0  # how long a wake-up that was lost can go unnoticed


def run(stop: threading.Event) -> None:
    """Until `stop`; then what is in hand is finished. What was in hand when it failed is sent again after its lease."""
    while not stop.is_set():
        try:
            asyncio.run(_deliver(stop))
        except* (psycopg.OperationalError, OperationalError, InterfaceError) as errors:
            log.warning("webhooks_wait", error=repr(errors.exceptions[0]))
        except* Exception:
            log.exception("webhooks_failed")
        if not stop.is_set():
            stop.wait(1)


async def _deliver(stop: threading.Event) -> None:
    in_hand: set[asyncio.Task[None]] = set()
    listener = await psycopg.AsyncConnection.connect(settings.EASEL.database_url, autocommit=True)
    pools = ConnectionPools(settings.EASEL.webhook_allow, connections_max=IN_HAND_MAX)
    async with pools, listener, asyncio.TaskGroup() as tasks:
        await listener.execute(f"LISTEN {CHANNEL}")
        while not stop.is_set():
            room = IN_HAND_MAX - len(in_hand)
            claims = await _in_thread(partial(deliveries_claim, room=room, now=datetime.now(UTC))) if room else []
            for claim in claims:
                task = tasks.create_task(_one(pools, claim))
                in_hand.add(task)
                task.add_done_callback(in_hand.discard)
            if not claims:
                async for _ in listener.notifies(timeout=POLL_SECONDS, stop_after=1):
                    pass


async def _one(pools: ConnectionPools, claim: Claim) -> None:
    answer = await send(pools, claim)
    rng = random.Random()  # noqa: S311 - spreads attempts, protects nothing
    await _in_thread(partial(delivery_record, claim, answer, now=datetime.now(UTC), rng=rng))
    said = {"delivery": str(claim.delivery_id), "attempt": claim.attempt, "status": answer.status}
    log.info("webhook_sent", **said, outcome=answer.outcome, duration_seconds=round(answer.seconds, 3))


async def _in_thread(verb: Callable[[], T]) -> T:
    def then_return_connections() -> T:
        try:
            return verb()
        finally:
            connections.close_all()

    return await asyncio.get_running_loop().run_in_executor(_database, then_return_connections)
