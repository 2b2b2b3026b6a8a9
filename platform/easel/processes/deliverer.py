"""The webhook deliverer, a thread of the scheduler process: sends the deliveries that are due, many at a time.

Any number of deliverers may run at once, since each delivery is claimed under a lease.
"""

import asyncio
import random
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

import structlog
from django.conf import settings

from core.threads import in_thread
from easel.processes.loop import UNAVAILABLE, run_turns
from easel.webhooks.delivery import Claim, ConnectionPools, deliveries_claim, delivery_record, send
from easel.webhooks.outbox import CHANNEL

log = structlog.get_logger()
IN_FLIGHT_MAX = 64
POLL_SECONDS = 1.0
# Results are recorded by these threads. Each holds a connection of the scheduler's share of the database's connections.
_record_threads = ThreadPoolExecutor(3, thread_name_prefix="webhooks")


def run(stop: threading.Event) -> None:
    """Deliver until `stop` is set, and then finish the deliveries in flight."""
    asyncio.run(_run(stop))


async def _run(stop: threading.Event) -> None:
    """Send on this event loop, while a thread claims the deliveries."""
    events = asyncio.get_running_loop()
    in_flight: set[Future[None]] = set()

    def turn() -> bool:
        room = IN_FLIGHT_MAX - len(in_flight)
        claims = deliveries_claim(room=room, now=datetime.now(UTC)) if room else []
        for claim in claims:
            delivery = asyncio.run_coroutine_threadsafe(_deliver(pools, claim), events)
            in_flight.add(delivery)
            delivery.add_done_callback(in_flight.discard)
        return bool(claims)

    async with ConnectionPools(settings.EASEL.webhook_allow, connections_max=IN_FLIGHT_MAX) as pools:
        await asyncio.to_thread(
            run_turns, turn, process="webhooks", stop=stop, pause_seconds=POLL_SECONDS, channels=(CHANNEL,)
        )
        await asyncio.gather(*map(asyncio.wrap_future, tuple(in_flight)))


async def _deliver(pools: ConnectionPools, claim: Claim) -> None:
    fields = {"delivery": str(claim.delivery.pk), "attempt": claim.delivery.attempts}
    try:
        result = await send(pools, claim)
        jitter = random.Random()  # noqa: S311 - it spreads attempts over time and protects nothing
        await in_thread(delivery_record, claim, result, now=datetime.now(UTC), rng=jitter, threads=_record_threads)
    # The delivery is sent again when its lease is over.
    except UNAVAILABLE as error:
        log.warning("webhook_result_lost", **fields, error=repr(error))
    except Exception:
        log.exception("webhook_result_lost", **fields)
    else:
        seconds = round(result.seconds, 3)
        log.info("webhook_sent", **fields, status=result.status, outcome=result.outcome, duration_seconds=seconds)
